//! What time alone brings about: jobs that become due, leases that run out.

use std::sync::Arc;
use std::time::Duration;

use executr_api::JobState;
use executr_store::Advanced;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::core::Core;
use crate::lock::Lock;

/// However far away the next thing seems to be, the store is asked this often.
const AT_LEAST_EVERY: Duration = Duration::from_secs(1);
/// How many jobs of each kind are moved in one go.
const BATCH: u32 = 1_000;
/// Clocks drift: the store's is looked at this often.
const CLOCK_EVERY: Duration = Duration::from_secs(60);

/// When the sweeper has to look next.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    at: Lock<Option<Instant>>,
    earlier: Notify,
}

impl Alarm {
    /// Something is due at `instant`.
    pub(crate) fn set(&self, instant: Instant) {
        let mut at = self.at.hold();
        if at.is_none_or(|at| instant < at) {
            *at = Some(instant);
            self.earlier.notify_one();
        }
    }

    /// Returns when it is time.
    async fn wait(&self) {
        loop {
            let at = *self.at.hold();
            tokio::select! {
                () = async { match at { Some(at) => sleep_until(at).await, None => std::future::pending().await } } => break,
                () = self.earlier.notified() => {}
            }
        }
        *self.at.hold() = None;
    }
}

/// Sweeps until it is dropped. For one lease period nothing is reclaimed: workers that this coordinator hasn't heard of
/// may only not have found it yet.
pub(crate) async fn sweep(core: Arc<Core>) {
    let may_reclaim_from = Instant::now() + core.options.lease;
    let mut clock_read = Instant::now();
    loop {
        let may_reclaim = Instant::now() >= may_reclaim_from;
        let next = match core.store.advance(may_reclaim, BATCH).await {
            Ok(advanced) => {
                let (more, next_at) = (advanced.more, advanced.next_at);
                follow_up(&core, advanced);
                if more {
                    tokio::task::yield_now().await;
                    continue;
                }
                next_at.map(|at| core.clock.instant(at))
            }
            Err(error) => {
                tracing::warn!(%error, "could not look what is due; trying again");
                None
            }
        };
        // A millisecond at least: the clock here is an estimate, and a time that it takes for passed may lie ahead.
        let now = Instant::now();
        let soon = now + Duration::from_millis(1);
        let mut at = next.map_or(now + AT_LEAST_EVERY, |next| next.clamp(soon, now + AT_LEAST_EVERY));
        if !may_reclaim {
            at = at.min(may_reclaim_from.max(soon));
        }
        core.alarm.set(at);
        core.alarm.wait().await;
        if clock_read.elapsed() >= CLOCK_EVERY {
            clock_read = Instant::now();
            if let Err(error) = core.clock.refresh(&*core.store).await {
                tracing::warn!(%error, "could not read the store's clock; trying again");
            }
        }
    }
}

fn follow_up(core: &Core, advanced: Advanced) {
    for (job, worker) in &advanced.reclaimable {
        tracing::warn!(%job, %worker, "a lease ran out; another worker may take the job");
    }
    for (job, state, fence, worker) in &advanced.ended {
        tracing::warn!(%job, %worker, %state, "a job ended because its lease ran out");
        match state {
            JobState::Cancelled => core.observer.cancelled(1),
            _ => core.observer.failed(None),
        }
        core.tokens.forget_job(*job);
        if let Some(session) = core.sessions.get(worker) {
            session.revoked(fence);
        }
        core.changed(*job);
    }
    if !advanced.ended.is_empty() {
        core.observer.lease_lost(advanced.ended.len() as u64);
    }
    core.readied(&advanced.readied);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_earliest_time_set_rings() {
        let alarm = Arc::new(Alarm::default());
        let start = Instant::now();
        alarm.set(start + Duration::from_secs(5));
        let waiting = tokio::spawn({
            let alarm = Arc::clone(&alarm);
            async move { alarm.wait().await }
        });
        tokio::task::yield_now().await;
        alarm.set(start + Duration::from_secs(2));
        alarm.set(start + Duration::from_secs(9));
        waiting.await.expect("it rings");
        assert_eq!(start.elapsed().as_secs(), 2);
    }
}
