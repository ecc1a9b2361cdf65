//! Looking at runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use executr_api::{RunQuery, RunState};
use executr_spec::{JobId, RunId, Tenant, Timestamp};
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params, params_from_iter};

use super::artifacts::artifact;
use super::load::{places_of_bytes, run_id, run_state, run_state_code};
use crate::sqlite::query::{COLUMNS, collect, record};
use crate::sqlite::row::{STATES, digest, get, json, parsed, time, unsigned};
use crate::{Handed, RunJobRecord, RunRecord, StoreError};

/// The columns that [`run_record`] reads.
const RUN_COLUMNS: &str = "
    SELECT id, tenant, name, state, created_at, started_at, completed_at, deadline, fail_fast, source, rerun_of, message,
           last_event, scheduled, blocked, ready, running, cancelling, completed, failed, cancelled, waiting, skipped
    FROM run WHERE NOT hidden";

fn run_record(row: &Row<'_>) -> Result<RunRecord, StoreError> {
    let mut jobs = BTreeMap::new();
    for (column, state) in (13..).zip(STATES) {
        let count = unsigned(get(row, column)?);
        if count > 0 {
            jobs.insert(state, count);
        }
    }
    Ok(RunRecord {
        id: run_id(get(row, 0)?),
        tenant: parsed(&get::<String>(row, 1)?)?,
        name: get(row, 2)?,
        state: run_state(get(row, 3)?)?,
        created_at: Timestamp(get(row, 4)?),
        started_at: time(get(row, 5)?),
        completed_at: time(get(row, 6)?),
        deadline: time(get(row, 7)?),
        fail_fast: get(row, 8)?,
        source: get::<Option<[u8; 32]>>(row, 9)?.map(digest),
        rerun_of: get::<Option<[u8; 16]>>(row, 10)?.map(run_id),
        message: get(row, 11)?,
        jobs,
        last_event: unsigned(get(row, 12)?),
    })
}

/// One run.
pub(super) fn run(connection: &Connection, id: RunId) -> Result<Option<RunRecord>, StoreError> {
    collect(connection, &format!("{RUN_COLUMNS} AND id = ?1"), [id.0.as_bytes()], run_record)
        .map(|mut found| found.pop())
}

/// Runs, newest first.
pub(super) fn runs(
    connection: &Connection,
    query: &RunQuery,
    tenant: Option<&Tenant>,
) -> Result<Vec<RunRecord>, StoreError> {
    let mut sql = RUN_COLUMNS.to_owned();
    let mut values: Vec<Value> = Vec::new();
    let mut condition = |text: &str, value: Value| {
        values.push(value);
        sql.push_str(text);
    };
    if let Some(before) = query.before {
        let before = before.0.as_bytes().to_vec();
        condition(" AND number < (SELECT number FROM run WHERE id = ? AND NOT hidden)", before.into());
    }
    if let Some(state) = query.state {
        condition(" AND state = ?", i64::from(run_state_code(state)).into());
    }
    if let Some(name) = &query.name {
        condition(" AND name = ?", name.clone().into());
    }
    if let Some(tenant) = tenant {
        condition(" AND tenant = ?", tenant.as_str().to_owned().into());
    }
    sql.push_str(" ORDER BY number DESC LIMIT ?");
    values.push(query.limit.map_or(-1, i64::from).into());
    collect(connection, &sql, params_from_iter(values), run_record)
}

/// How many runs are in each state.
pub(super) fn run_counts(connection: &Connection) -> Result<BTreeMap<RunState, u64>, StoreError> {
    collect(connection, "SELECT state, count(*) FROM run WHERE NOT hidden GROUP BY state", [], |row| {
        Ok((run_state(get(row, 0)?)?, unsigned(get(row, 1)?)))
    })
    .map(|counts| counts.into_iter().collect())
}

/// A run's plan.
pub(super) fn run_plan(connection: &Connection, id: RunId) -> Result<Option<Arc<str>>, StoreError> {
    collect(
        connection,
        "SELECT p.plan FROM run r JOIN run_plan p USING (number) WHERE r.id = ?1 AND NOT r.hidden",
        [id.0.as_bytes()],
        |row| get::<String>(row, 0).map(Into::into),
    )
    .map(|mut found| found.pop())
}

/// The run a job belongs to, and its name there.
pub(super) fn run_of(connection: &Connection, job: JobId) -> Result<Option<(RunId, String)>, StoreError> {
    collect(
        connection,
        "SELECT r.id, n.name FROM job j CROSS JOIN run_job n USING (seq)
         CROSS JOIN run r ON r.number = (SELECT max(number) FROM run WHERE number < j.seq)
         WHERE j.id = ?1 AND NOT r.hidden",
        [job.0.as_bytes()],
        |row| Ok((run_id(get(row, 0)?), get(row, 1)?)),
    )
    .map(|mut found| found.pop())
}

/// Jobs of a run from a place on.
pub(super) fn run_jobs(
    connection: &Connection,
    run: RunId,
    from: u32,
    limit: u32,
) -> Result<Vec<RunJobRecord>, StoreError> {
    // One transaction: between two statements the run could be deleted.
    let transaction = connection.unchecked_transaction().map_err(crate::sqlite::error::from_sqlite)?;
    let found = collect(
        &transaction,
        "SELECT number, jobs FROM run WHERE id = ?1 AND NOT hidden",
        [run.0.as_bytes()],
        |row| Ok((get::<i64>(row, 0)?, get::<i64>(row, 1)?)),
    )?;
    let Some((number, jobs)) = found.first().copied() else { return Ok(Vec::new()) };
    let first = number + 1 + i64::from(from);
    let last = (number + jobs).min(first.saturating_add(i64::from(limit)) - 1);
    let sql = format!(
        "{COLUMNS}, j.seq, r.name, r.needs, r.continue_on_error, r.outputs
         FROM job j CROSS JOIN bucket b ON b.id = j.bucket CROSS JOIN spec s ON s.seq = j.seq
         CROSS JOIN run_job r ON r.seq = j.seq LEFT JOIN lease l ON l.seq = j.seq
         WHERE j.seq BETWEEN ?1 AND ?2 ORDER BY j.seq"
    );
    let mut found = collect(&transaction, &sql, params![first, last], |row| {
        let seq: i64 = get(row, 27)?;
        Ok(RunJobRecord {
            index: u32::try_from(seq - number - 1).map_err(crate::sqlite::error::damaged)?,
            name: get(row, 28)?,
            needs: places_of_bytes(&get::<Vec<u8>>(row, 29)?).collect(),
            continue_on_error: get(row, 30)?,
            job: record(row)?,
            handed: Handed {
                outputs: get::<Option<String>>(row, 31)?.map(|text| json(&text)).transpose()?.unwrap_or_default(),
                artifacts: Vec::new(),
            },
        })
    })?;
    let artifacts = collect(
        &transaction,
        "SELECT seq, name, tree, size, files FROM artifact WHERE number = ?1 AND seq BETWEEN ?2 AND ?3
         ORDER BY seq, name",
        params![number, first, last],
        |row| Ok((get::<i64>(row, 0)?, artifact(row, 1)?)),
    )?;
    for (seq, artifact) in artifacts {
        if let Some(job) = usize::try_from(seq - first).ok().and_then(|at| found.get_mut(at)) {
            job.handed.artifacts.push(artifact);
        }
    }
    Ok(found)
}
