//! Deleting what is over: final jobs, final runs, and whole days of output.

use executr_spec::Timestamp;
use tokio_postgres::Row;

use super::change::Change;
use super::coding;
use super::core::Core;
use super::fault::Fault;
use super::output;
use super::permits::Permits;
use super::runs;
use super::session::{Session, Step, step};

/// What is asked.
#[derive(Clone, Copy)]
pub(super) struct Wish {
    pub(super) before: Timestamp,
    pub(super) limit: u32,
}

/// Deletes final jobs, the oldest first, in one transaction.
pub(super) async fn delete_final(core: &Core, session: &mut Session, wish: Wish) -> Result<u64, Fault> {
    let now = session.begin(core.clock_offset()).await?;
    let floor = core.upkeep.deleted_to();
    // Jobs of runs go with their runs.
    let sql = format!(
        "{OLD} FROM (SELECT seq, completed_at, state FROM executr.ended WHERE completed_at >= $1 AND completed_at < $2
                     AND NOT EXISTS (SELECT FROM executr.run_job rj WHERE rj.seq = ended.seq)
                     ORDER BY completed_at, seq LIMIT $3 FOR UPDATE SKIP LOCKED) AS e
         JOIN executr.job j ON j.seq = e.seq"
    );
    let rows = session.rows(sql, &[&floor, &wish.before.0, &i64::from(wish.limit)]).await?;
    let steps = vec![step!("DELETE FROM executr.worker WHERE last_seen < $1", &wish.before.0)];
    delete_jobs(core, session, &mut Change::default(), &rows, steps, now).await?;
    session.commit().await?;
    let reached = rows.last().map(|row| row.get::<_, i64>(1));
    let is_all = (rows.len() as u64) < u64::from(wish.limit);
    core.upkeep.deleted(reached.filter(|_| !is_all));
    let mut deleted = rows.len() as u64;
    if is_all {
        let left = wish.limit.saturating_sub(u32::try_from(deleted).unwrap_or(u32::MAX));
        deleted += runs::delete_runs(core, session, wish.before, left).await?;
        output::drop_days(core, session).await?;
    }
    Ok(deleted)
}

/// What is to be known of final jobs that are deleted, of `executr.ended e` and `executr.job j`.
pub(super) const OLD: &str =
    "SELECT e.seq, e.completed_at, e.state, j.bucket, j.idempotency_key IS NOT NULL, j.blobs, j.permit";

/// Deletes final jobs. The statements of `more` go along.
pub(super) async fn delete_jobs(
    core: &Core,
    session: &mut Session,
    change: &mut Change,
    rows: &[Row],
    more: Vec<Step<'_>>,
    now: Timestamp,
) -> Result<(), Fault> {
    let seqs: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    for row in rows {
        core.registry.bucket(session, row.get(3)).await?;
        change.count(core, row.get(3), Some(coding::state(row.get(2))?), None);
    }
    let some = |column: usize| rows.iter().any(|row| row.get::<_, bool>(column));
    let mut steps = more;
    let mut permits: Vec<i64> = rows.iter().filter_map(|row| row.get(6)).collect();
    permits.sort_unstable();
    permits.dedup();
    if !seqs.is_empty() {
        if some(4) {
            steps.push(step!(
                "DELETE FROM executr.idempotency i USING executr.job j, executr.bucket b
                 WHERE j.seq = ANY($1) AND j.idempotency_key IS NOT NULL AND b.id = j.bucket
                       AND i.tenant = b.tenant AND i.key = j.idempotency_key AND i.job = j.id",
                &seqs
            ));
        }
        if some(5) {
            steps.push(step!("DELETE FROM executr.job_blob WHERE seq = ANY($1)", &seqs));
        }
        steps.push(step!("DELETE FROM executr.attempt WHERE seq = ANY($1)", &seqs));
        steps.push(step!("DELETE FROM executr.ended WHERE seq = ANY($1)", &seqs));
        steps.push(step!("DELETE FROM executr.job WHERE seq = ANY($1)", &seqs));
    }
    // Whoever submits a job with the key locks its row too, so none can appear between.
    Permits::default().lock(session, permits.iter().copied()).await?;
    if !permits.is_empty() {
        steps.push(step!(
            "DELETE FROM executr.permit p WHERE p.id = ANY($1) AND p.held = 0
             AND NOT EXISTS (SELECT FROM executr.job j WHERE j.permit = p.id)",
            &permits
        ));
    }
    change.write(core, session, now, steps).await
}
