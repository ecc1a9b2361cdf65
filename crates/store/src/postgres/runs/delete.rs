//! Deleting runs that are over.

use executr_spec::Timestamp;

use crate::postgres::change::Change;
use crate::postgres::core::Core;
use crate::postgres::fault::Fault;
use crate::postgres::retention::{OLD, delete_jobs};
use crate::postgres::session::{Session, step};

/// So many rows of one kind are deleted in one transaction.
const PART: i64 = 1_000;

/// Deletes runs that became final before `before`, the oldest first: hidden at once, and then part by part.
pub(in crate::postgres) async fn delete_runs(
    core: &Core,
    session: &mut Session,
    before: Timestamp,
    limit: u32,
) -> Result<u64, Fault> {
    let hidden = session
        .run(
            "WITH old AS MATERIALIZED (
                 SELECT seq FROM executr.run WHERE completed_at < $1 AND completed_at IS NOT NULL AND NOT deleted
                 ORDER BY completed_at, seq LIMIT $2 FOR UPDATE SKIP LOCKED)
             UPDATE executr.run r SET deleted = true FROM old WHERE r.seq = old.seq",
            &[&before.0, &i64::from(limit)],
        )
        .await?;
    // What an earlier call left too.
    let rows = session.rows("SELECT seq FROM executr.run WHERE deleted ORDER BY seq", &[]).await?;
    for row in rows {
        let run: i64 = row.get(0);
        while delete_part(core, session, run).await? {}
    }
    Ok(hidden)
}

/// Deletes some of what is left of a run. Returns whether there may be more.
async fn delete_part(core: &Core, session: &mut Session, run: i64) -> Result<bool, Fault> {
    let now = session.begin(core.clock_offset()).await?;
    let row = session.row("SELECT FROM executr.run WHERE seq = $1 AND deleted FOR UPDATE", &[&run]).await?;
    if row.is_none() {
        // Another coordinator was faster.
        session.roll_back().await;
        return Ok(false);
    }
    let sql = format!(
        "{OLD} FROM (SELECT seq FROM executr.run_job WHERE run = $1 ORDER BY place LIMIT $2) AS its
         JOIN executr.ended e ON e.seq = its.seq JOIN executr.job j ON j.seq = its.seq"
    );
    let rows = session.rows(sql, &[&run, &PART]).await?;
    let seqs: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    let mut change = Change::default();
    let more = !seqs.is_empty();
    let mut steps = vec![step!(
        "DELETE FROM executr.run_event WHERE run = $1 AND number IN (
             SELECT number FROM executr.run_event WHERE run = $1 ORDER BY number LIMIT $2)",
        &run,
        &(4 * PART)
    )];
    if more {
        steps.push(step!("DELETE FROM executr.handed WHERE seq = ANY($1)", &seqs));
        steps.push(step!("DELETE FROM executr.run_job WHERE seq = ANY($1)", &seqs));
    } else {
        for sql in [
            "DELETE FROM executr.run_event WHERE run = $1",
            "DELETE FROM executr.run_news WHERE run = $1",
            "DELETE FROM executr.run_plan WHERE run = $1",
            "DELETE FROM executr.job_blob WHERE seq = $1",
            "DELETE FROM executr.workspace_released WHERE run = $1",
            "DELETE FROM executr.workspace_holder h USING executr.workspace w WHERE w.run = $1 AND h.workspace = w.id",
            "DELETE FROM executr.workspace WHERE run = $1",
            "DELETE FROM executr.run WHERE seq = $1",
        ] {
            steps.push(step!(sql, &run));
        }
    }
    delete_jobs(core, session, &mut change, &rows, steps, now).await?;
    session.commit().await?;
    Ok(more)
}
