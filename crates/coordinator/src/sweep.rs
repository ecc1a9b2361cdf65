//! What time alone brings about: jobs that become due, leases that run out.

use std::sync::Arc;
use std::time::Duration;

use executr_api::JobState;
use executr_store::{Advanced, StoreError};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use crate::core::Core;
use crate::lock::Lock;
use crate::reclaiming::{AT_LEAST_EVERY, Reclaiming};

/// How many jobs of each kind are moved in one go.
const BATCH: u32 = 1_000;

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

/// Sweeps until it is dropped. When leases may be reclaimed is [`Reclaiming`]'s to say.
pub(crate) async fn sweep(core: Arc<Core>) {
    let mut reclaiming = Reclaiming::new(core.options.lease);
    loop {
        let next = match look(&core, &mut reclaiming).await {
            Ok(Advanced { more: true, .. }) => {
                tokio::task::yield_now().await;
                continue;
            }
            Ok(advanced) => advanced.next_at.map(|at| core.clock.instant(at)),
            Err(error) => {
                tracing::warn!(%error, "could not look what is due; trying again");
                reclaiming.doubt();
                None
            }
        };
        // A millisecond at least: the clock here is an estimate, and a time that it takes for passed may lie ahead.
        let now = Instant::now();
        let soon = now + Duration::from_millis(1);
        let mut at = next.map_or(now + AT_LEAST_EVERY, |next| next.clamp(soon, now + AT_LEAST_EVERY));
        if reclaiming.from() > now {
            at = at.min(reclaiming.from().max(soon));
        }
        core.alarm.set(at);
        core.alarm.wait().await;
    }
}

/// Moves what is due. The store's clock is read first, each time: it tells whether leases may be reclaimed, and must be
/// read before and not by the command that reclaims them.
async fn look(core: &Arc<Core>, reclaiming: &mut Reclaiming) -> Result<Advanced, StoreError> {
    let asked = Instant::now();
    let time = core.store.now().await?;
    core.clock.set(time);
    let may_reclaim = reclaiming.heard(asked, time);
    let advance = core.store.advance(may_reclaim, BATCH);
    let advanced = if may_reclaim {
        // A store that is away waits and repeats: what was right to ask a moment ago may be wrong by then.
        let most = reclaiming.tolerance().max(AT_LEAST_EVERY);
        timeout(most, advance)
            .await
            .map_err(|_| StoreError::Unavailable("looking for leases that ran out took too long".to_owned()))??
    } else {
        advance.await?
    };
    follow_up(core, &advanced);
    Ok(advanced)
}

fn follow_up(core: &Arc<Core>, advanced: &Advanced) {
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
    core.progressed(&advanced.run);
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
