//! What keeps the cost of commands flat: tallies are summed up, tables whose rows live for moments are vacuumed by how
//! much was removed from them, not by the minute, and buckets out of use are retired.

use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::core::{Core, Unit};
use super::fault::Fault;
use super::retire;
use super::session::Session;

/// How often it is looked whether there is anything to do.
const EVERY: Duration = Duration::from_secs(1);
/// So many rows of tallies are summed up.
const MOST_TALLIES: usize = 2_000;
/// So many rows removed from `ready` and `lease` are cleared away.
const MOST_REMOVED: usize = 50_000;
/// A transaction is not longer under way than so many microseconds: a job that ended before another one is visible that much later at most.
const SLACK: i64 = 120_000_000;

/// What this process did that has to be cleared away.
pub(super) struct Upkeep {
    tallied: AtomicUsize,
    removed: AtomicUsize,
    deleted_to: AtomicI64,
    idle: Mutex<HashSet<i32>>,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self {
            tallied: AtomicUsize::new(0),
            removed: AtomicUsize::new(0),
            deleted_to: AtomicI64::new(i64::MIN),
            idle: Mutex::default(),
        }
    }
}

impl Upkeep {
    /// So many rows were added to the tally.
    pub(super) fn tallied(&self, rows: usize) {
        self.tallied.fetch_add(rows, Ordering::Relaxed);
    }

    /// So many rows were removed from `ready` or `lease`.
    pub(super) fn removed(&self, rows: usize) {
        self.removed.fetch_add(rows, Ordering::Relaxed);
    }

    /// Remembers which tallies count no job that isn't final, and returns those of the last time.
    pub(super) fn idle(&self, now: HashSet<i32>) -> HashSet<i32> {
        std::mem::replace(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner), now)
    }

    /// Nothing that is final became so before this time, except what [`deleted`](Self::deleted) was told to be unsure of.
    pub(super) fn deleted_to(&self) -> i64 {
        self.deleted_to.load(Ordering::Relaxed)
    }

    /// All that became final before `reached` is deleted; `None` when the next deletion shall look from the beginning.
    pub(super) fn deleted(&self, reached: Option<i64>) {
        self.deleted_to.store(reached.map_or(i64::MIN, |at| at.saturating_sub(SLACK)), Ordering::Relaxed);
    }
}

/// Starts the task that does it. It ends with the store.
pub(super) fn start(core: &Arc<Core>) {
    tokio::spawn(run(Arc::downgrade(core)));
}

async fn run(core: Weak<Core>) {
    let mut retired_at = Instant::now();
    loop {
        let Some(every) = core.upgrade().map(|core| core.options.retire_every.min(EVERY)) else { return };
        tokio::time::sleep(every).await;
        let Some(core) = core.upgrade() else { return };
        let counter = |counter: &AtomicUsize, most: usize| {
            let due = counter.load(Ordering::Relaxed) >= most;
            if due {
                counter.store(0, Ordering::Relaxed);
            }
            due
        };
        let sum: Unit<(), ()> = |_, session, (), _| Box::pin(sum_up(session));
        let clear: Unit<(), ()> = |_, session, (), _| Box::pin(clear_away(session));
        if counter(&core.upkeep.tallied, MOST_TALLIES)
            && let Err(error) = core.carry_out(&(), sum).await
        {
            tracing::warn!(%error, "the tally could not be summed up; it is tried again");
        }
        if counter(&core.upkeep.removed, MOST_REMOVED)
            && let Err(error) = core.carry_out(&(), clear).await
        {
            tracing::warn!(%error, "a table could not be vacuumed; it is tried again");
        }
        let retire: Unit<(), ()> = |core, session, (), _| Box::pin(retire::retire(core, session));
        if retired_at.elapsed() >= core.options.retire_every {
            retired_at = Instant::now();
            if let Err(error) = core.carry_out(&(), retire).await {
                tracing::warn!(%error, "buckets out of use could not be looked for; it is tried again");
            }
        }
    }
}

/// Replaces the rows of the tally by their sums. Readers see either.
async fn sum_up(session: &mut Session) -> Result<(), Fault> {
    session
        .run(
            "WITH old AS (DELETE FROM executr.tally RETURNING bucket, state, jobs)
             INSERT INTO executr.tally (bucket, state, jobs)
             SELECT bucket, state, sum(jobs)::bigint FROM old GROUP BY bucket, state HAVING sum(jobs) <> 0",
            &[],
        )
        .await?;
    vacuum(session, "tally").await
}

async fn clear_away(session: &mut Session) -> Result<(), Fault> {
    for table in ["ready", "lease", "bucket"] {
        vacuum(session, table).await?;
    }
    Ok(())
}

/// Frees the space of deleted rows for new ones. If another coordinator or the server itself is at it, that is as good.
async fn vacuum(session: &mut Session, table: &str) -> Result<(), Fault> {
    let sql = format!("VACUUM (SKIP_LOCKED, TRUNCATE off, INDEX_CLEANUP on) executr.{table}");
    Ok(session.client().batch_execute(&sql).await?)
}
