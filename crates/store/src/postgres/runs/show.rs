//! Showing runs and their jobs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use executr_api::{Artifact, JobState, RunQuery, RunState};
use executr_spec::{Digest, JobId, RunId, Tenant, Timestamp};
use tokio_postgres::Row;

use super::artifact::{ARTIFACT, artifact};
use super::code::{run_state, run_state_code};
use crate::postgres::coding::{damaged, from_json, name, small, unsigned};
use crate::postgres::core::Core;
use crate::postgres::fault::Fault;
use crate::postgres::job;
use crate::postgres::session::{Session, step};
use crate::{Handed, RunJobRecord, RunRecord};

/// A run. What of its jobs isn't counted in its row is counted where they stand; those that are left are ready.
const SHOWN: &str = "
    SELECT r.id, r.tenant, r.name, r.state, r.created_at, coalesce(r.started_at, news.at), r.completed_at, r.deadline,
           r.fail_fast, r.source, r.rerun_of, r.message, r.last_event + coalesce(news.events, 0), r.jobs, r.waiting,
           r.completed, r.failed, r.cancelled, r.skipped, live.running, live.cancelling, live.scheduled, live.blocked,
           r.seq
    FROM executr.run r
    LEFT JOIN LATERAL (SELECT min(at) AS at, count(*) AS events FROM executr.run_news n WHERE n.run = r.seq) AS news
         ON true
    LEFT JOIN LATERAL (
        SELECT (SELECT count(*) FROM executr.lease l WHERE l.run = r.seq AND NOT l.cancelling) AS running,
               (SELECT count(*) FROM executr.lease l WHERE l.run = r.seq AND l.cancelling) AS cancelling,
               (SELECT count(*) FROM executr.scheduled s WHERE s.seq BETWEEN r.seq AND r.last_seq AND EXISTS (
                    SELECT FROM executr.run_job rj WHERE rj.seq = s.seq AND rj.run = r.seq OFFSET 0)) AS scheduled,
               (SELECT count(*) FROM executr.blocked b WHERE b.seq BETWEEN r.seq AND r.last_seq AND EXISTS (
                    SELECT FROM executr.run_job rj WHERE rj.seq = b.seq AND rj.run = r.seq OFFSET 0)) AS blocked
        WHERE r.state < 2) AS live ON true";

fn record(row: &Row) -> Result<RunRecord, Fault> {
    let count = |column: usize| unsigned(row.get::<_, Option<i64>>(column).unwrap_or(0));
    let mut jobs: BTreeMap<JobState, u64> = [
        (JobState::Waiting, 14),
        (JobState::Completed, 15),
        (JobState::Failed, 16),
        (JobState::Cancelled, 17),
        (JobState::Skipped, 18),
        (JobState::Running, 19),
        (JobState::Cancelling, 20),
        (JobState::Scheduled, 21),
        (JobState::Blocked, 22),
    ]
    .map(|(state, column)| (state, count(column)))
    .into();
    let elsewhere: u64 = jobs.values().sum();
    jobs.insert(JobState::Ready, count(13).saturating_sub(elsewhere));
    jobs.retain(|_, jobs| *jobs > 0);
    let digest = |bytes: &[u8]| bytes.try_into().map(Digest).map_err(|_| damaged("a run's source".to_owned()));
    let source = row.get::<_, Option<&[u8]>>(9).map(digest).transpose()?;
    Ok(RunRecord {
        id: RunId(row.get(0)),
        tenant: name(row.get(1))?,
        name: row.get(2),
        state: run_state(row.get(3))?,
        created_at: Timestamp(row.get(4)),
        started_at: row.get::<_, Option<i64>>(5).map(Timestamp),
        completed_at: row.get::<_, Option<i64>>(6).map(Timestamp),
        deadline: row.get::<_, Option<i64>>(7).map(Timestamp),
        fail_fast: row.get(8),
        source,
        rerun_of: row.get::<_, Option<uuid::Uuid>>(10).map(RunId),
        message: row.get(11),
        jobs,
        last_event: count(12),
    })
}

/// One run.
pub(super) async fn run(session: &mut Session, id: RunId) -> Result<Option<RunRecord>, Fault> {
    let row = session.row(format!("{SHOWN} WHERE r.id = $1 AND NOT r.deleted"), &[&id.0]).await?;
    row.as_ref().map(record).transpose()
}

/// A run's plan.
pub(super) async fn plan(session: &mut Session, id: RunId) -> Result<Option<Arc<str>>, Fault> {
    let sql = "SELECT p.plan FROM executr.run r JOIN executr.run_plan p ON p.run = r.seq
         WHERE r.id = $1 AND NOT r.deleted";
    Ok(session.row(sql, &[&id.0]).await?.map(|row| row.get::<_, &str>(0).into()))
}

/// How many runs are in each state.
pub(super) async fn counts(session: &mut Session) -> Result<BTreeMap<RunState, u64>, Fault> {
    let rows = session.rows("SELECT state, count(*) FROM executr.run WHERE NOT deleted GROUP BY state", &[]).await?;
    rows.iter().map(|row| Ok((run_state(row.get(0))?, unsigned(row.get(1))))).collect()
}

/// Runs, newest first.
pub(super) async fn list(session: &mut Session, wanted: &(RunQuery, Option<Tenant>)) -> Result<Vec<RunRecord>, Fault> {
    let (query, tenant) = wanted;
    let before = match query.before {
        None => i64::MAX,
        Some(id) => {
            let row = session.row("SELECT seq FROM executr.run WHERE id = $1 AND NOT deleted", &[&id.0]).await?;
            row.map_or(i64::MIN, |row| row.get(0))
        }
    };
    let state = query.state.map(run_state_code);
    let tenant = tenant.as_ref().map(Tenant::as_str);
    let limit = query.limit.map_or(i64::MAX, i64::from);
    // Each filter that has an index is written so that it can be used.
    let by_state = if state.is_some() { "r.state = $1" } else { "$1::smallint IS NULL" };
    let by_name = if query.name.is_some() { "r.name = $2" } else { "$2::text IS NULL" };
    let sql = format!(
        "{SHOWN} WHERE {by_state} AND {by_name} AND ($3::text IS NULL OR r.tenant = $3) AND r.seq < $4 AND NOT r.deleted
         ORDER BY r.seq DESC LIMIT $5"
    );
    let rows = session.rows(sql, &[&state, &query.name, &tenant, &before, &limit]).await?;
    rows.iter().map(record).collect()
}

/// Which jobs of a run to show.
pub(super) type Page = (RunId, u32, u32);

/// Jobs of a run in the order of their places.
pub(super) async fn jobs(core: &Core, session: &mut Session, page: &Page) -> Result<Vec<RunJobRecord>, Fault> {
    let (run, from, limit) = page;
    let from = i32::try_from(*from).unwrap_or(i32::MAX);
    let rows = session
        .rows(
            "SELECT rj.seq, rj.job, rj.place, rj.name, rj.needs, rj.continue_on_error, h.outputs FROM executr.run r
             JOIN executr.run_job rj ON rj.run = r.seq LEFT JOIN executr.handed h ON h.seq = rj.seq
             WHERE r.id = $1 AND NOT r.deleted AND rj.place >= $2 ORDER BY rj.place LIMIT $3",
            &[&run.0, &from, &i64::from(*limit)],
        )
        .await?;
    let ids: Vec<uuid::Uuid> = rows.iter().map(|row| row.get(1)).collect();
    let seqs: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    let mut records: HashMap<JobId, _> =
        job::by_ids(core, session, &ids).await?.into_iter().map(|record| (record.id, record)).collect();
    let made = session
        .read_all(vec![step!(
            format!("SELECT a.seq, {ARTIFACT} FROM executr.artifact a WHERE a.seq = ANY($1) ORDER BY a.name"),
            &seqs
        )])
        .await?;
    let mut artifacts: HashMap<i64, Vec<Artifact>> = HashMap::new();
    for row in made.iter().flatten() {
        artifacts.entry(row.get(0)).or_default().push(artifact(row, 1)?);
    }
    let mut jobs = Vec::with_capacity(rows.len());
    for row in &rows {
        // It is gone when the run is deleted meanwhile.
        let Some(job) = records.remove(&JobId(row.get(1))) else { continue };
        let outputs = row.get::<_, Option<&str>>(6).map(from_json).transpose()?.unwrap_or_default();
        jobs.push(RunJobRecord {
            index: small(row.get::<_, i32>(2).into()),
            name: row.get(3),
            needs: row.get::<_, Vec<i32>>(4).into_iter().map(|need| small(need.into())).collect(),
            continue_on_error: row.get(5),
            job,
            handed: Handed { outputs, artifacts: artifacts.remove(&row.get(0)).unwrap_or_default() },
        });
    }
    Ok(jobs)
}

/// The run of a job, and its name there.
pub(super) async fn run_of(session: &mut Session, job: JobId) -> Result<Option<(RunId, String)>, Fault> {
    let row = session
        .row(
            "SELECT r.id, rj.name FROM executr.job j JOIN executr.run_job rj ON rj.seq = j.seq
             JOIN executr.run r ON r.seq = rj.run WHERE j.id = $1 AND j.run IS NOT NULL AND NOT r.deleted",
            &[&job.0],
        )
        .await?;
    Ok(row.map(|row| (RunId(row.get(0)), row.get(1))))
}
