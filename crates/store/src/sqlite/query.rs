//! Looking at jobs, attempts and leases.

use executr_api::{AttemptStatus, Fence, JobQuery, JobState, JobStatus};
use executr_spec::{JobId, SpecJson, Timestamp, WorkerId};
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params, params_from_iter};

use super::error::{damaged, from_sqlite};
use super::row::{
    attempt_keys, attempt_number, get, job_id, json, lease_id, parsed, state, state_code, status, time, unsigned,
};
use super::writer::Writer;
use crate::{AttemptRecord, JobRecord, LeaseRecord, StoreError};

/// The columns that [`record`] reads. A lease overrides what the job's row says.
pub(super) const COLUMNS: &str = "
    SELECT j.id, b.tenant, j.type, b.queue, b.class, b.priority, j.state, j.created_at, j.started_at, j.completed_at,
           j.due_at, j.attempt, j.failures, j.lost_leases, j.max_retries, j.worker, j.exit_code, j.error_message, j.usage,
           j.output_bytes, s.spec, l.attempt, l.worker, l.started_at, l.renewed_at, l.cancelling, l.reclaimable";

/// Jobs first, whatever is asked of their buckets: `CROSS JOIN` keeps SQLite from another order, which it would have to sort.
const FROM_JOBS: &str = "
    FROM job j CROSS JOIN bucket b ON b.id = j.bucket CROSS JOIN spec s ON s.seq = j.seq LEFT JOIN lease l ON l.seq = j.seq";

/// Running jobs only, found by their leases.
const FROM_LEASES: &str = "
    FROM lease l CROSS JOIN job j ON j.seq = l.seq CROSS JOIN bucket b ON b.id = j.bucket CROSS JOIN spec s ON s.seq = j.seq";

pub(super) fn record(row: &Row<'_>) -> Result<JobRecord, StoreError> {
    let mut record = JobRecord {
        id: job_id(get(row, 0)?),
        tenant: parsed(&get::<String>(row, 1)?)?,
        job_type: parsed(&get::<String>(row, 2)?)?,
        queue: parsed(&get::<String>(row, 3)?)?,
        class: parsed(&get::<String>(row, 4)?)?,
        priority: executr_spec::Priority::from_rank(get(row, 5)?).ok_or_else(|| damaged("a priority"))?,
        state: state(get(row, 6)?)?,
        reclaimable: false,
        created_at: Timestamp(get(row, 7)?),
        started_at: time(get(row, 8)?),
        completed_at: time(get(row, 9)?),
        due_at: time(get(row, 10)?),
        attempt: get(row, 11)?,
        failures: get(row, 12)?,
        lost_leases: get(row, 13)?,
        max_retries: get(row, 14)?,
        worker: get::<Option<String>>(row, 15)?.map(WorkerId),
        renewed_at: None,
        exit_code: get(row, 16)?,
        error_message: get(row, 17)?,
        usage: get::<Option<String>>(row, 18)?.map(|text| json(&text)).transpose()?,
        output_bytes: unsigned(get(row, 19)?),
        spec: SpecJson::from_text(get(row, 20)?).map_err(damaged)?,
    };
    if let Some(attempt) = get(row, 21)? {
        record.attempt = attempt;
        record.worker = get::<Option<String>>(row, 22)?.map(WorkerId);
        record.started_at = time(get(row, 23)?);
        record.renewed_at = time(get(row, 24)?);
        record.state = if get(row, 25)? { JobState::Cancelling } else { JobState::Running };
        record.reclaimable = get(row, 26)?;
        record.output_bytes = 0;
    }
    Ok(record)
}

/// All rows of a query, read one by one.
pub(super) fn collect<T>(
    connection: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
    read: impl Fn(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = connection.prepare_cached(sql).map_err(from_sqlite)?;
    let mut rows = statement.query(parameters).map_err(from_sqlite)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(from_sqlite)? {
        found.push(read(row)?);
    }
    Ok(found)
}

fn seq_of(connection: &Connection, id: JobId) -> Result<Option<i64>, StoreError> {
    collect(connection, "SELECT seq FROM job WHERE id = ?1", [id.0.as_bytes()], |row| get(row, 0))
        .map(|found| found.first().copied())
}

/// One job.
pub(super) fn job(connection: &Connection, id: JobId) -> Result<Option<JobRecord>, StoreError> {
    collect(connection, &format!("{COLUMNS}{FROM_JOBS} WHERE j.id = ?1"), [id.0.as_bytes()], record)
        .map(|mut found| found.pop())
}

/// Jobs, newest first.
pub(super) fn jobs(connection: &Connection, query: &JobQuery) -> Result<Vec<JobRecord>, StoreError> {
    let running = query.status == Some(JobStatus::Running);
    let mut sql = format!("{COLUMNS}{} WHERE 1", if running { FROM_LEASES } else { FROM_JOBS });
    let mut values: Vec<Value> = Vec::new();
    let mut condition = |text: &str, value: Value| {
        values.push(value);
        sql.push_str(text);
    };
    if let Some(before) = query.before {
        let Some(before) = seq_of(connection, before)? else { return Ok(Vec::new()) };
        condition(if running { " AND l.seq < ?" } else { " AND j.seq < ?" }, before.into());
    }
    if let Some(job_type) = &query.job_type {
        condition(" AND j.type = ?", job_type.as_str().to_owned().into());
    }
    if let Some(priority) = query.priority {
        condition(" AND b.priority = ?", i64::from(priority.rank()).into());
    }
    if let Some(queue) = &query.queue {
        condition(" AND b.queue = ?", queue.as_str().to_owned().into());
    }
    let code = |state| i64::from(state_code(state));
    match query.status {
        None | Some(JobStatus::Running) => {}
        Some(JobStatus::Pending) => {
            let waiting = code(JobState::Waiting);
            let pending = format!(" AND l.seq IS NULL AND (j.state <= ? OR j.state = {waiting})");
            condition(&pending, code(JobState::Ready).into());
        }
        Some(JobStatus::Completed) => {
            condition(&format!(" AND j.state IN (?, {})", code(JobState::Skipped)), code(JobState::Completed).into());
        }
        Some(JobStatus::Failed) => condition(" AND j.state = ?", code(JobState::Failed).into()),
        Some(JobStatus::Cancelled) => condition(" AND j.state = ?", code(JobState::Cancelled).into()),
    }
    let number = if running { "l.seq" } else { "j.seq" };
    sql.push_str(&format!(" ORDER BY {number} DESC LIMIT ? OFFSET ?"));
    values.push(query.limit.map_or(-1, i64::from).into());
    values.push(super::row::integer(query.offset).into());
    collect(connection, &sql, params_from_iter(values), record)
}

/// All attempts of a job, oldest first; the running one is the last.
pub(super) fn attempts(connection: &Connection, id: JobId) -> Result<Vec<AttemptRecord>, StoreError> {
    // One transaction: between two statements the running attempt could end.
    let transaction = connection.unchecked_transaction().map_err(from_sqlite)?;
    let Some(seq) = seq_of(&transaction, id)? else { return Ok(Vec::new()) };
    let (first, last) = attempt_keys(seq);
    let mut attempts = collect(
        &transaction,
        "SELECT key, lease, worker, ip, started_at, ended_at, status, exit_code, error_message, usage, steps, output_bytes
         FROM attempt WHERE key BETWEEN ?1 AND ?2 ORDER BY key",
        params![first, last],
        |row| {
            Ok(AttemptRecord {
                fence: Fence { job: id, attempt: attempt_number(get(row, 0)?), lease: lease_id(get(row, 1)?) },
                worker: WorkerId(get(row, 2)?),
                ip: get(row, 3)?,
                started_at: Timestamp(get(row, 4)?),
                ended_at: time(get(row, 5)?),
                status: status(get(row, 6)?)?,
                exit_code: get(row, 7)?,
                error_message: get(row, 8)?,
                usage: get::<Option<String>>(row, 9)?.map(|text| json(&text)).transpose()?,
                steps: get::<Option<String>>(row, 10)?.map(|text| json(&text)).transpose()?.unwrap_or_default(),
                output_bytes: unsigned(get(row, 11)?),
            })
        },
    )?;
    attempts.extend(collect(
        &transaction,
        "SELECT attempt, lease, worker, ip, started_at FROM lease WHERE seq = ?1",
        [seq],
        |row| {
            Ok(AttemptRecord {
                fence: Fence { job: id, attempt: get(row, 0)?, lease: lease_id(get(row, 1)?) },
                worker: WorkerId(get(row, 2)?),
                ip: get(row, 3)?,
                started_at: Timestamp(get(row, 4)?),
                ended_at: None,
                status: AttemptStatus::Running,
                exit_code: None,
                error_message: None,
                usage: None,
                steps: Vec::new(),
                output_bytes: 0,
            })
        },
    )?);
    Ok(attempts)
}

/// Where the output of an ended attempt is.
pub(super) struct EndedOutput {
    /// Where it ends.
    pub(super) end: u64,
    /// All of it, when it is little; else it is in a segment.
    pub(super) inline: Option<Vec<u8>>,
}

/// `None`: there is no such attempt, or it hasn't ended.
pub(super) fn ended_output(
    connection: &Connection,
    id: JobId,
    attempt: u32,
) -> Result<Option<EndedOutput>, StoreError> {
    let Some(seq) = seq_of(connection, id)? else { return Ok(None) };
    let key = super::row::attempt_key(seq, attempt);
    collect(connection, "SELECT output_bytes, output FROM attempt WHERE key = ?1", [key], |row| {
        Ok(EndedOutput { end: unsigned(get(row, 0)?), inline: get(row, 1)? })
    })
    .map(|mut found| found.pop())
}

impl Writer<'_> {
    /// The live leases of a worker.
    pub(super) fn leases_of(&self, worker: &WorkerId) -> Result<Vec<LeaseRecord>, StoreError> {
        self.leases.of_worker(worker).map(|live| self.lease_record(live)).collect()
    }

    /// The live lease of a job.
    pub(super) fn lease_of(&self, job: JobId) -> Result<Option<LeaseRecord>, StoreError> {
        self.leases.get(job).map(|live| self.lease_record(live)).transpose()
    }

    fn lease_record(&self, live: &super::lease::Live) -> Result<LeaseRecord, StoreError> {
        let spec = self.find("SELECT spec FROM spec WHERE seq = ?1", [live.seq], |row| row.get(0))?;
        let spec: String = spec.ok_or_else(|| damaged(format_args!("no job {}", live.seq)))?;
        Ok(LeaseRecord {
            fence: live.fence,
            worker: live.worker_id(),
            started_at: live.started_at,
            expires_at: live.expires_at,
            cancelling: live.cancelling,
            tenant: self.index.key(live.bucket)?.tenant.clone(),
            spec: SpecJson::from_text(spec).map_err(damaged)?,
        })
    }
}
