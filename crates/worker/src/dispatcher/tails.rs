//! Output that couldn't be appended before its attempt ended: written to disk first, then appended until it arrived or
//! nobody wants it.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use executr_api::{Fence, RetryDelay, WorkerApi};
use executr_engine::output::Tail;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::Dispatcher;
use crate::outbox::LeftTail;

/// A tail that got further.
pub(super) enum TailStep {
    /// It was written to disk, or couldn't be.
    Saved(Box<SavedTail>),
    /// It was appended, or will never be.
    Done(Fence),
}

/// What writing a tail to disk came to.
pub(super) struct SavedTail {
    fence: Fence,
    token: String,
    path: PathBuf,
    tail: io::Result<Tail>,
}

/// The tails under way.
#[derive(Default)]
pub(super) struct Tails {
    steps: FuturesUnordered<Pin<Box<dyn Future<Output = TailStep> + Send>>>,
    saving: usize,
}

impl Tails {
    /// Whether some are being written to disk.
    pub(super) fn is_saving(&self) -> bool {
        self.saving > 0
    }

    /// The next that gets further; never while there is none.
    pub(super) async fn next(&mut self) -> TailStep {
        match self.steps.next().await {
            Some(step) => {
                self.saving -= usize::from(matches!(step, TailStep::Saved(_)));
                step
            }
            None => std::future::pending().await,
        }
    }

    /// Writes one to disk. It may be hundreds of MiB: on a thread that may wait.
    pub(super) fn save(&mut self, fence: Fence, token: String, tail: Tail, path: PathBuf) {
        self.saving += 1;
        self.steps.push(Box::pin(async move {
            let file = path.clone();
            let saved = tokio::task::spawn_blocking(move || tail.save(&file)).await;
            let tail = saved.unwrap_or_else(|error| Err(error.into()));
            TailStep::Saved(Box::new(SavedTail { fence, token, path, tail }))
        }));
    }

    /// Appends one, for as long as its result is wanted.
    pub(super) fn deliver(&mut self, api: &Arc<dyn WorkerApi>, left: LeftTail) {
        let LeftTail { fence, token, mut tail, unwanted } = left;
        let api = Arc::clone(api);
        self.steps.push(Box::pin(async move {
            let delivered = async {
                let mut delay = RetryDelay::default();
                loop {
                    match tail.send_next(&api, &fence, &token).await {
                        Ok(true) => return,
                        Ok(false) => delay.reset(),
                        Err(_) => tokio::time::sleep(delay.next_delay()).await,
                    }
                }
            };
            tokio::select! {
                () = delivered => {}
                _ = unwanted => {}
            }
            TailStep::Done(fence)
        }));
    }
}

impl Dispatcher {
    pub(super) fn tail_went_on(&mut self, step: TailStep) {
        let SavedTail { fence, token, path, tail } = match step {
            TailStep::Saved(saved) => *saved,
            TailStep::Done(fence) => return self.outbox.output_done(&fence),
        };
        match tail {
            Ok(tail) => match self.outbox.output_saved(&fence) {
                Some(unwanted) => {
                    self.tails.deliver(&self.engine.api, LeftTail { fence, token, tail, unwanted });
                }
                // Nobody wants it any more.
                None => drop(std::fs::remove_file(&path)),
            },
            Err(error) => {
                tracing::warn!(%fence, %error, "output is lost: it can't be kept until the server is back");
                drop(std::fs::remove_file(&path));
                self.outbox.output_done(&fence);
            }
        }
        self.outbox.save();
    }
}
