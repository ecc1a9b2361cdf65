//! Deleting what is old, so gently that claims don't feel it.

use std::sync::Arc;
use std::time::Duration;

use executr_spec::Timestamp;
use executr_store::{RunStore, StoreError};
use tokio::time::{Instant, sleep};

use crate::core::Core;

/// One batch should take the store no longer than this: so long may a claim have to wait behind it.
const BATCH_TIME: Duration = Duration::from_millis(4);
/// The fewest and most jobs of a batch.
const BATCH: (u32, u32) = (20, 1_000);
/// After each batch the store is left alone for so many times what the batch took.
const PAUSE: u32 = 3;
/// The first round comes this long after the start, or after an interval, if that is shorter.
const FIRST: Duration = Duration::from_secs(60);

/// Deletes old jobs and blobs until it is dropped.
pub(crate) async fn clean(core: Arc<Core>) {
    sleep(core.options.cleanup_interval.min(FIRST)).await;
    loop {
        if let Err(error) = round(&core).await {
            tracing::warn!(%error, "could not delete what is old; trying again at the next interval");
        }
        sleep(core.options.cleanup_interval).await;
    }
}

async fn round(core: &Core) -> Result<(), StoreError> {
    let now = core.store.now().await?;
    let before = now.minus(core.options.retention);
    let mut limit = BATCH.0 * 5;
    let mut total = 0;
    loop {
        let start = Instant::now();
        let deleted = core.store.delete_final(before, limit).await?;
        let took = start.elapsed();
        if deleted > 0 {
            total += deleted;
            core.observer.cleaned(deleted);
        }
        if deleted < u64::from(limit) {
            break;
        }
        limit = next_limit(limit, took);
        sleep(took * PAUSE).await;
    }
    let artifacts = match core.store.runs() {
        Some(runs) => old_artifacts(runs, now.minus(core.options.artifact_retention)).await?,
        None => 0,
    };
    let blobs = core.store.delete_blobs(now.minus(core.options.blob_keep)).await?;
    if total > 0 || artifacts > 0 || blobs > 0 {
        tracing::info!(jobs = total, artifacts, blobs, "deleted what is past its retention");
    }
    Ok(())
}

/// Deletes artifacts recorded before `before`. Their blobs go with the others that nothing names.
async fn old_artifacts(runs: &dyn RunStore, before: Timestamp) -> Result<u64, StoreError> {
    let mut total = 0;
    loop {
        let start = Instant::now();
        let deleted = runs.delete_artifacts(before, BATCH.1).await?;
        total += deleted;
        if deleted < u64::from(BATCH.1) {
            return Ok(total);
        }
        sleep(start.elapsed() * PAUSE).await;
    }
}

/// How many jobs fit into [`BATCH_TIME`] when `limit` took `took`. At most twice as many as before.
fn next_limit(limit: u32, took: Duration) -> u32 {
    let fitting = f64::from(limit) * (BATCH_TIME.as_secs_f64() / took.as_secs_f64().max(1e-6));
    // In range by the clamp, so the cast only cuts the fraction.
    fitting.clamp(f64::from(BATCH.0), f64::from(limit.saturating_mul(2).min(BATCH.1))) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_grow_and_shrink_towards_the_time_they_may_take() {
        assert_eq!(next_limit(100, Duration::from_millis(1)), 200);
        assert_eq!(next_limit(100, Duration::from_millis(8)), 50);
        assert_eq!(next_limit(100, Duration::from_secs(1)), BATCH.0);
        assert_eq!(next_limit(BATCH.1, Duration::ZERO), BATCH.1);
        assert_eq!(next_limit(BATCH.0, Duration::from_secs(9)), BATCH.0);
    }
}
