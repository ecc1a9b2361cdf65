//! A run's events as a stream: from any number, live.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use executr_api::{ApiError, RunEvent, RunEventFollow, RunEventKind, RunEventStream};
use executr_spec::RunId;
use futures_util::{StreamExt as _, stream};
use tokio::time::timeout;

use crate::core::Core;
use crate::driven::driven;
use crate::refusal;
use crate::watches::Watch;

/// The store is looked at this often at least, should a signal from elsewhere have been lost.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// So many events are read from the store at a time.
const AT_A_TIME: u32 = 500;

/// Where a reader stands.
struct Follower {
    core: Arc<Core>,
    run: RunId,
    watch: Watch<RunId>,
    after: u64,
    follow: bool,
    read: VecDeque<RunEvent>,
    /// Whether the next look may find more at once.
    more: bool,
    ended: bool,
}

/// A run's events.
pub(crate) async fn follow(core: &Arc<Core>, run: RunId, asked: RunEventFollow) -> Result<RunEventStream, ApiError> {
    let watch = core.run_watches.watch(run);
    let record = core.run_record(run).await?;
    let follower = Follower {
        core: Arc::clone(core),
        run,
        watch,
        after: asked.after,
        follow: asked.follow,
        read: VecDeque::new(),
        more: true,
        // Whoever has them all need not wait for more.
        ended: record.state.is_final() && asked.after >= record.last_event,
    };
    let events = stream::try_unfold(follower, |mut follower| async move {
        Ok(follower.next().await?.map(|event| (event, follower)))
    });
    Ok(driven(events.boxed()))
}

impl Follower {
    async fn next(&mut self) -> Result<Option<RunEvent>, ApiError> {
        loop {
            if let Some(event) = self.read.pop_front() {
                self.after = event.number;
                self.ended = matches!(event.kind, RunEventKind::RunEnded { .. });
                return Ok(Some(event));
            }
            if self.ended || !(self.more || self.follow) {
                return Ok(None);
            }
            if !self.more {
                self.core.refuse_when_stopping()?;
                // Told or not: the store is looked at.
                let _ = timeout(LOOK_EVERY, self.watch.changed()).await;
            }
            let events = self.core.runs_kept()?.events(self.run, self.after, AT_A_TIME).await;
            let events = events.map_err(refusal::store)?;
            self.more = events.len() >= AT_A_TIME as usize;
            if events.is_empty() {
                // It may have been deleted while somebody followed it.
                let record = self.core.run_record(self.run).await?;
                // It was followed from after its end.
                self.ended = record.state.is_final() && self.after >= record.last_event;
            }
            self.read = events.into();
        }
    }
}
