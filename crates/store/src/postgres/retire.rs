//! Buckets that fell out of use: without it every class that ever was would be known for ever.
//!
//! Buckets of one queue, class and priority are counted together, and fall out of use together: when none of their jobs
//! is left that isn't final, at two looks in a row. They are *retired* then, so no more jobs get into them; a submission
//! that has not heard of it finds out when it locks them, and makes new ones. When retention has deleted the last of their
//! jobs, the rows go.

use std::collections::HashSet;

use super::core::Core;
use super::fault::Fault;
use super::registry::BUCKET_LOCK;
use super::session::Session;

/// Looks for buckets to retire and to delete, and learns of those that others retired and deleted.
pub(super) async fn retire(core: &Core, session: &mut Session) -> Result<(), Fault> {
    core.registry.refresh(session).await?;
    let mut idle = core.registry.tallies();
    let sql = "SELECT bucket FROM executr.tally WHERE state < 5 GROUP BY bucket HAVING sum(jobs) > 0";
    for row in session.rows(sql, &[]).await? {
        idle.remove(&row.get(0));
    }
    let before = core.upkeep.idle(idle.clone());
    let idle: Vec<i32> = idle.intersection(&before).copied().collect();
    if !idle.is_empty() {
        retire_idle(session, &idle).await?;
    }
    delete_unused(session).await?;
    let row = session.row("SELECT count(*), count(*) FILTER (WHERE retired) FROM executr.bucket", &[]).await?;
    let there = row.map(|row| (row.get::<_, i64>(0), row.get::<_, i64>(1)));
    let (known, retired) = core.registry.size();
    if there != Some((known as i64, retired as i64)) {
        core.registry.reload(session).await?;
    }
    Ok(())
}

async fn retire_idle(session: &mut Session, idle: &[i32]) -> Result<(), Fault> {
    session.begin(0).await?;
    // Nobody makes another one of theirs meanwhile.
    session.rows("SELECT pg_advisory_xact_lock($1)", &[&BUCKET_LOCK]).await?;
    let sql = "SELECT FROM executr.bucket WHERE tally = ANY($1) AND NOT retired ORDER BY id FOR UPDATE";
    session.rows(sql, &[&idle]).await?;
    // A statement of its own: it sees what was committed before the locks were had.
    session
        .run(
            "UPDATE executr.bucket SET retired = true, active = false
             WHERE tally = ANY($1) AND NOT retired AND NOT tally = ANY(ARRAY(
                 SELECT bucket FROM executr.tally WHERE state < 5 AND bucket = ANY($1)
                 GROUP BY bucket HAVING sum(jobs) > 0))",
            &[&idle],
        )
        .await?;
    session.commit().await
}

/// Deletes what is retired and without a job.
async fn delete_unused(session: &mut Session) -> Result<(), Fault> {
    let sql = "SELECT DISTINCT tally FROM executr.bucket WHERE retired";
    let retired: HashSet<i32> = session.rows(sql, &[]).await?.iter().map(|row| row.get(0)).collect();
    if retired.is_empty() {
        return Ok(());
    }
    let retired: Vec<i32> = retired.into_iter().collect();
    session
        .run(
            "DELETE FROM executr.bucket b WHERE tally = ANY($1) AND retired
             AND id < (SELECT max(id) FROM executr.bucket)
             AND NOT tally = ANY(ARRAY(SELECT bucket FROM executr.tally WHERE bucket = ANY($1)
                                       GROUP BY bucket HAVING sum(jobs) > 0))",
            &[&retired],
        )
        .await?;
    Ok(())
}
