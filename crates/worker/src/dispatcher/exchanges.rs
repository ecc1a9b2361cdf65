//! The exchanges that are open now.
//!
//! At most one that counts: it waits for orders, or it brings news and is answered at once. News that comes up while one
//! waits goes with a new exchange without delay; the coordinator answers the older one empty, and until then it is only
//! listened to. News that comes up while news is on its way goes with the next: so results gather by themselves when
//! there are many, and none waits when there are few.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use executr_api::{ApiError, ErrorCode, Fence, Orders, Report, WorkerApi, WorkspaceId};
use tokio::time::Instant;

type Answer = Pin<Box<dyn Future<Output = Result<Orders, ApiError>> + Send>>;

/// An answered exchange.
pub(super) struct Answered {
    pub(super) brought: Brought,
    pub(super) answer: Result<Orders, ApiError>,
    /// When it was sent: what it renewed is renewed since then.
    pub(super) sent_at: Instant,
    /// Whether a later one was opened meanwhile.
    pub(super) superseded: bool,
}

/// What a report brought that has to arrive.
#[derive(Debug, Default)]
pub(super) struct Brought {
    pub(super) results: Vec<Fence>,
    pub(super) returned: Vec<Fence>,
    pub(super) cleaned: Vec<WorkspaceId>,
    /// It brought no result because this one may be why an earlier report was refused.
    pub(super) suspect: Option<Fence>,
    /// It said that the worker drains.
    pub(super) draining: bool,
    /// It is to be answered at once.
    pub(super) is_news: bool,
}

struct Open {
    brought: Brought,
    held: Vec<Fence>,
    answer: Answer,
    sent_at: Instant,
    superseded: bool,
}

/// The exchanges that are open now.
#[derive(Default)]
pub(super) struct Exchanges {
    open: Vec<Open>,
    sequence: u64,
}

impl Exchanges {
    /// Whether one brings news now.
    pub(super) fn brings_news(&self) -> bool {
        self.open.iter().any(|open| open.brought.is_news)
    }

    /// Whether there is one the coordinator can answer with orders.
    pub(super) fn is_listening(&self) -> bool {
        self.open.iter().any(|open| !open.superseded)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The number of the next report.
    pub(super) fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Opens one. Older ones are superseded; one that was so already isn't listened to any longer.
    pub(super) fn open(&mut self, api: &Arc<dyn WorkerApi>, report: Report, brought: Brought, patience: Duration) {
        self.open.retain_mut(|open| {
            let listened_to = !open.superseded;
            open.superseded = true;
            listened_to || open.brought.is_news
        });
        let held = report.held.clone();
        let api = Arc::clone(api);
        let longest = Duration::from_millis(report.wait_ms) + patience;
        let answer = Box::pin(async move {
            let silent = |_| {
                let text = format!("no answer from the server within {longest:?}");
                Err(ApiError::new(ErrorCode::Timeout, text))
            };
            tokio::time::timeout(longest, api.exchange(report)).await.unwrap_or_else(silent)
        });
        self.open.push(Open { brought, held, answer, sent_at: Instant::now(), superseded: false });
    }

    /// The next that is answered, and what it said was held; never while none is open.
    pub(super) async fn answered(&mut self) -> (Answered, Vec<Fence>) {
        poll_fn(|context| {
            for index in 0..self.open.len() {
                if let Poll::Ready(answer) = self.open[index].answer.as_mut().poll(context) {
                    let Open { brought, held, sent_at, superseded, .. } = self.open.remove(index);
                    return Poll::Ready((Answered { brought, answer, sent_at, superseded }, held));
                }
            }
            Poll::Pending
        })
        .await
    }
}
