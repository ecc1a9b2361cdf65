//! Showing jobs, their attempts, and counts over all of them.

use std::collections::BTreeSet;

use executr_api::{AttemptStatus, Fence, JobQuery, JobState, JobStatus, StatsView};
use executr_spec::{JobId, LeaseId, Priority, QueueName, RequirementClass, SpecJson, Timestamp, WorkerId};
use tokio_postgres::Row;
use uuid::Uuid;

use super::coding::{self, damaged, from_json, name, small, unsigned};
use super::core::Core;
use super::fault::Fault;
use super::session::Session;
use crate::{AttemptRecord, JobRecord};

/// A job with its place, its live lease or its end, its last attempt before that, and the last one that brought a result.
const SHOWN: &str = "
    SELECT j.seq, j.id, j.bucket, j.job_type, j.created_at, j.max_retries, j.spec,
           s.due_at, b.seq IS NOT NULL AS is_blocked,
           l.attempt, l.failures, l.lost, l.worker, l.started_at, l.renewed_at, l.due_at IS NULL AS is_reclaimable,
           l.cancelling, l.reason,
           e.state, e.completed_at, e.attempt, e.failures, e.lost, e.reason,
           coalesce(s.attempt, b.attempt, r.attempt), coalesce(s.failures, b.failures, r.failures),
           coalesce(s.lost, b.lost, r.lost),
           last.worker, last.started_at, last.output_bytes,
           told.exit_code, told.error, told.usage, told.status, w.seq IS NOT NULL AS is_waiting
    FROM executr.job j
    LEFT JOIN executr.scheduled s ON s.seq = j.seq
    LEFT JOIN executr.blocked b ON b.seq = j.seq
    LEFT JOIN executr.lease l ON l.job = j.id
    LEFT JOIN executr.ended e ON e.seq = j.seq
    LEFT JOIN executr.ready r ON r.bucket = j.bucket AND r.seq = j.seq
    LEFT JOIN executr.waiting w ON j.run IS NOT NULL AND w.seq = j.seq
    LEFT JOIN LATERAL (SELECT a.worker, a.started_at, a.output_bytes FROM executr.all_attempts a
                       WHERE a.seq = j.seq ORDER BY a.attempt DESC LIMIT 1) AS last ON true
    LEFT JOIN LATERAL (SELECT a.exit_code, a.error, a.usage, a.status FROM executr.all_attempts a
                       WHERE a.seq = j.seq AND a.status BETWEEN 1 AND 3 ORDER BY a.attempt DESC LIMIT 1) AS told ON true";

/// The jobs with these ids that there are, in no order.
pub(super) async fn by_ids(core: &Core, session: &mut Session, ids: &[Uuid]) -> Result<Vec<JobRecord>, Fault> {
    let rows = session.rows(format!("{SHOWN} WHERE j.id = ANY($1)"), &[&ids]).await?;
    records(core, session, rows).await
}

/// A specification that was kept.
pub(super) fn spec(text: String) -> Result<SpecJson, Fault> {
    SpecJson::from_text(text).map_err(|error| damaged(format!("a job: {error}")))
}

async fn records(core: &Core, session: &mut Session, rows: Vec<Row>) -> Result<Vec<JobRecord>, Fault> {
    let mut records = Vec::with_capacity(rows.len());
    for row in rows {
        records.extend(record(core, session, &row).await?);
    }
    Ok(records)
}

/// A job, unless only a newer program understands it.
async fn record(core: &Core, session: &mut Session, row: &Row) -> Result<Option<JobRecord>, Fault> {
    let bucket = core.registry.bucket(session, row.get(2)).await?;
    let Some(class) = bucket.class.clone() else { return Ok(None) };
    let due_at: Option<i64> = row.get(7);
    let running: Option<i32> = row.get(9);
    let ended: Option<i16> = row.get(18);
    let number = |column: usize| small(row.get::<_, Option<i32>>(column).unwrap_or(0).into());
    let told_error = || row.get::<_, Option<String>>(31);
    // Which columns count depends on where it stands.
    let (state, counts, error) = if let Some(code) = ended {
        let reason: Option<String> = row.get(23);
        (coding::state(code)?, 20, reason.or_else(told_error))
    } else if running.is_some() {
        let cancelling: bool = row.get(16);
        let reason: Option<String> = row.get(17);
        if cancelling { (JobState::Cancelling, 9, reason) } else { (JobState::Running, 9, told_error()) }
    } else if due_at.is_some() {
        (JobState::Scheduled, 24, told_error())
    } else if row.get(8) {
        (JobState::Blocked, 24, told_error())
    } else if row.get(34) {
        (JobState::Waiting, 24, None)
    } else {
        (JobState::Ready, 24, told_error())
    };
    let is_live = running.is_some();
    let worker: Option<String> = if is_live { row.get(12) } else { row.get(27) };
    let started_at: Option<i64> = if is_live { row.get(13) } else { row.get(28) };
    Ok(Some(JobRecord {
        id: JobId(row.get(1)),
        tenant: bucket.tenant.clone(),
        job_type: name(row.get(3))?,
        queue: bucket.queue.clone(),
        class,
        priority: bucket.priority,
        state,
        reclaimable: is_live && row.get(15),
        created_at: Timestamp(row.get(4)),
        started_at: started_at.map(Timestamp),
        completed_at: row.get::<_, Option<i64>>(19).map(Timestamp),
        due_at: due_at.map(Timestamp),
        attempt: number(counts),
        failures: number(counts + 1),
        lost_leases: number(counts + 2),
        max_retries: small(row.get(5)),
        worker: worker.map(WorkerId),
        renewed_at: row.get::<_, Option<i64>>(14).map(Timestamp),
        exit_code: row.get(30),
        error_message: error,
        usage: row.get::<_, Option<&str>>(32).map(from_json).transpose()?,
        output_bytes: if is_live { 0 } else { unsigned(row.get::<_, Option<i64>>(29).unwrap_or(0)) },
        spec: spec(row.get(6))?,
    }))
}

/// All attempts of a job, oldest first.
pub(super) async fn attempts(session: &mut Session, id: JobId) -> Result<Vec<AttemptRecord>, Fault> {
    let rows = session
        .rows(
            "SELECT a.attempt, a.lease, a.worker, a.ip, a.started_at, a.ended_at, a.status, a.exit_code, a.error, a.usage,
                    a.steps, a.output_bytes
             FROM executr.job j JOIN executr.all_attempts a ON a.seq = j.seq WHERE j.id = $1
             UNION ALL
             SELECT attempt, lease, worker, ip, started_at, NULL, 0::smallint, NULL, NULL, NULL, NULL, 0::bigint
             FROM executr.lease WHERE job = $1
             ORDER BY 1",
            &[&id.0],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let status = coding::status(row.get(6))?;
            Ok(AttemptRecord {
                fence: Fence { job: id, attempt: small(row.get::<_, i32>(0).into()), lease: LeaseId(row.get(1)) },
                worker: WorkerId(row.get(2)),
                ip: row.get(3),
                started_at: Timestamp(row.get(4)),
                ended_at: row.get::<_, Option<i64>>(5).map(Timestamp).filter(|_| status != AttemptStatus::Running),
                status,
                exit_code: row.get(7),
                error_message: row.get(8),
                usage: row.get::<_, Option<&str>>(9).map(from_json).transpose()?,
                steps: row.get::<_, Option<&str>>(10).map(from_json).transpose()?.unwrap_or_default(),
                output_bytes: unsigned(row.get(11)),
            })
        })
        .collect()
}

/// Jobs, newest first.
pub(super) async fn list(core: &Core, session: &mut Session, query: &JobQuery) -> Result<Vec<JobRecord>, Fault> {
    let before = match query.before {
        None => i64::MAX,
        Some(id) => {
            let row = session.row("SELECT seq FROM executr.job WHERE id = $1", &[&id.0]).await?;
            row.map_or(i64::MIN, |row| row.get(0))
        }
    };
    // What a status means in rows. Each can be told by index, and by the smaller side.
    let status = match query.status {
        None => "true",
        Some(JobStatus::Pending) => {
            "NOT EXISTS (SELECT FROM executr.ended e WHERE e.seq = j.seq)
             AND NOT EXISTS (SELECT FROM executr.lease l WHERE l.job = j.id)"
        }
        Some(JobStatus::Running) => "j.id IN (SELECT job FROM executr.lease)",
        Some(JobStatus::Completed) => "EXISTS (SELECT FROM executr.ended e WHERE e.seq = j.seq AND e.state IN (5, 8))",
        Some(JobStatus::Failed) => "j.seq IN (SELECT seq FROM executr.ended e WHERE e.state = 6 AND e.state > 5)",
        Some(JobStatus::Cancelled) => "j.seq IN (SELECT seq FROM executr.ended e WHERE e.state = 7 AND e.state > 5)",
    };
    let buckets = match (&query.queue, query.priority) {
        (None, None) => None,
        (queue, priority) => {
            core.registry.refresh(session).await?;
            Some(core.registry.matching(queue.as_ref(), priority))
        }
    };
    let job_type = query.job_type.as_ref().map(|job_type| job_type.as_str());
    let limit = query.limit.map_or(i64::MAX, i64::from);
    let offset = coding::signed(query.offset);
    let sql = format!(
        "{SHOWN} WHERE j.seq IN (
             SELECT j.seq FROM executr.job j
             WHERE j.seq < $1 AND ($2::text IS NULL OR j.job_type = $2)
                   AND ($3::int[] IS NULL OR j.bucket = ANY($3)) AND {status}
             ORDER BY j.seq DESC LIMIT $4 OFFSET $5)
         ORDER BY j.seq DESC"
    );
    let rows = session.rows(sql, &[&before, &job_type, &buckets, &limit, &offset]).await?;
    records(core, session, rows).await
}

/// Counts over all jobs.
pub(super) async fn stats(core: &Core, session: &mut Session) -> Result<StatsView, Fault> {
    let mut stats = StatsView::default();
    for status in JobStatus::ALL {
        stats.jobs_by_status.insert(status.to_string(), 0);
    }
    for priority in Priority::ALL {
        stats.pending_by_priority.insert(priority.to_string(), 0);
    }
    for state in JobState::ALL.into_iter().filter(|state| !state.is_final()) {
        stats.jobs_by_state.insert(state.to_string(), 0);
    }
    let sql = "SELECT bucket, state, sum(jobs)::bigint FROM executr.tally GROUP BY bucket, state HAVING sum(jobs) > 0";
    for row in session.rows(sql, &[]).await? {
        let bucket = core.registry.bucket(session, row.get(0)).await?;
        let state = coding::state(row.get(1))?;
        let jobs = unsigned(row.get(2));
        *stats.jobs_by_status.entry(state.status().to_string()).or_default() += jobs;
        if !state.is_final() {
            *stats.jobs_by_state.entry(state.to_string()).or_default() += jobs;
        }
        if state.status() == JobStatus::Pending {
            *stats.pending_by_priority.entry(bucket.priority.to_string()).or_default() += jobs;
            *stats.pending_by_queue.entry(bucket.queue.to_string()).or_default() += jobs;
        }
    }
    Ok(stats)
}

/// The live classes of a queue, and whether each has a job in the ready set.
pub(super) async fn classes(
    core: &Core,
    session: &mut Session,
    queue: &QueueName,
) -> Result<Vec<(RequirementClass, bool)>, Fault> {
    let live = core.registry.live_classes(session, queue).await?;
    let names: Vec<&str> = live.iter().map(RequirementClass::as_str).collect();
    let rows = session
        .rows(
            "SELECT asked.n FROM unnest($2::text[]) WITH ORDINALITY AS asked (class, n)
             WHERE EXISTS (SELECT FROM executr.bucket b JOIN executr.ready r ON r.bucket = b.id
                           WHERE b.queue = $1 AND b.class = asked.class AND b.active)",
            &[&queue.as_str(), &names],
        )
        .await?;
    let ready: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
    Ok((1..).zip(live).map(|(number, class)| (class, ready.contains(&number))).collect())
}
