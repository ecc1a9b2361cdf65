//! The statements of the embedded store for one job's whole life, in a bare loop: same schema, same statements with as
//! many values, same settings, same durability; no queue around them. What the store is measured against.

use std::io;
use std::ops::Range;
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Transaction, params};

/// The store's own schema.
const SCHEMA: &str = include_str!("../../crates/store/src/sqlite/schema/0001_first.sql");
const SPEC: &str = r#"{"type":"command","steps":[{"argv":["true","xxxxxxxxxx"]}],"priority":"background","max_retries":0,"queue":"default"}"#;
const WORKER: &str = "no-op-0";
/// So many jobs are recorded, so many handed out and so many finished in one commit: what the store's writer finds
/// gathered when it is kept busy.
const BATCH: u32 = 2_000;

/// Jobs a second: recorded, handed out and finished.
///
/// # Errors
/// When SQLite reports one.
pub fn per_second(jobs: u32) -> io::Result<f64> {
    let directory = tempfile::tempdir()?;
    run(&directory.path().join("queue.db"), jobs).map_err(io::Error::other)
}

fn run(path: &Path, jobs: u32) -> rusqlite::Result<f64> {
    let mut connection = Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -16384; PRAGMA temp_store = MEMORY",
    )?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.execute_batch(SCHEMA)?;
    connection.execute_batch("INSERT INTO bucket VALUES (1, 'default', '', 1, 'default', 0, 0, 0, 0, 0, 0, 0, 0)")?;
    connection.set_prepared_statement_cache_capacity(32);
    let start = std::time::Instant::now();
    let mut claimed = Vec::new();
    let mut first = 0;
    while first < jobs || !claimed.is_empty() {
        let last = jobs.min(first + BATCH);
        let transaction = connection.transaction()?;
        submit(&transaction, first..last)?;
        finish(&transaction, &claimed)?;
        claimed = claim(&transaction)?;
        count(&transaction, last)?;
        transaction.commit()?;
        first = last;
    }
    Ok(f64::from(jobs) / start.elapsed().as_secs_f64())
}

fn submit(transaction: &Transaction<'_>, seqs: Range<u32>) -> rusqlite::Result<()> {
    let none: Option<&str> = None;
    let mut job = transaction.prepare_cached(
        "INSERT INTO job VALUES (?1, ?2, ?3, ?4, ?5, ?6, NULL, NULL, ?7, 0, 0, 0, ?8, NULL, NULL, NULL, NULL, 0, ?9, ?10, ?11)",
    )?;
    let mut spec = transaction.prepare_cached("INSERT INTO spec VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    let mut ready = transaction.prepare_cached("INSERT INTO ready (bucket, seq) VALUES (?1, ?2)")?;
    for seq in seqs {
        let id = uuid::Uuid::now_v7();
        job.execute(params![seq, id.as_bytes(), 1, "command", 2, i64::from(seq), none, 0, none, none, none])?;
        spec.execute(params![seq, 0, 1, 60, none, SPEC])?;
        ready.execute(params![1, seq])?;
    }
    Ok(())
}

struct Claimed {
    seq: i64,
    lease: [u8; 16],
    job: [u8; 16],
}

fn claim(transaction: &Transaction<'_>) -> rusqlite::Result<Vec<Claimed>> {
    let none: Option<&str> = None;
    let mut claimed = Vec::new();
    let mut oldest = transaction.prepare_cached("SELECT seq FROM ready WHERE bucket = 1 ORDER BY seq LIMIT ?1")?;
    let seqs = oldest.query_map([BATCH], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
    let mut read = transaction.prepare_cached(
        "SELECT j.id, j.attempt, j.failures, j.lost_leases, j.max_retries, j.concurrency_key IS NOT NULL,
                s.backoff_kind, s.backoff_min, s.backoff_max, j.created_at, s.spec
         FROM job j JOIN spec s USING (seq) WHERE j.seq = ?1",
    )?;
    let mut leave = transaction.prepare_cached("DELETE FROM ready WHERE bucket = ?1 AND seq = ?2")?;
    let mut lease =
        transaction.prepare_cached("INSERT INTO lease VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?6, 0, 0)")?;
    for seq in seqs {
        let (job, spec) = read.query_row([seq], |row| Ok((row.get(0)?, row.get::<_, String>(10)?)))?;
        std::hint::black_box(spec);
        leave.execute([1, seq])?;
        let id = uuid::Uuid::new_v4().into_bytes();
        lease.execute(params![seq, id, 1, WORKER, none, seq, seq, 1])?;
        claimed.push(Claimed { seq, lease: id, job });
    }
    Ok(claimed)
}

fn finish(transaction: &Transaction<'_>, claimed: &[Claimed]) -> rusqlite::Result<()> {
    let none: Option<&str> = None;
    let mut lease = transaction.prepare_cached("DELETE FROM lease WHERE seq = ?1")?;
    let mut attempt = transaction
        .prepare_cached("INSERT INTO attempt VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)")?;
    let mut job = transaction.prepare_cached(
        "UPDATE job SET state = ?2, started_at = ?3, completed_at = ?4, due_at = ?5, attempt = ?6, failures = ?7,
                lost_leases = ?8, worker = ?9, output_bytes = ?10,
                exit_code = CASE WHEN ?11 THEN ?12 ELSE exit_code END,
                usage = CASE WHEN ?11 THEN ?13 ELSE usage END,
                error_message = CASE WHEN ?14 THEN ?15 ELSE error_message END
         WHERE seq = ?1",
    )?;
    let mut last = transaction.prepare_cached("INSERT INTO final (completed_at, seq) VALUES (?1, ?2)")?;
    for Claimed { seq, lease: id, job: job_id } in claimed {
        std::hint::black_box(job_id);
        lease.execute([seq])?;
        attempt.execute(params![(seq << 24) + 1, id, WORKER, none, seq, seq, 1, 0, none, none, none, 0, none])?;
        job.execute(params![seq, 5, seq, seq, none, 1, 0, 0, WORKER, 0, true, 0, none, true, none])?;
        last.execute([seq, seq])?;
    }
    Ok(())
}

/// What is written once a commit: how many jobs stand where, and whose turn it was.
fn count(transaction: &Transaction<'_>, seen: u32) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "UPDATE bucket SET scheduled = ?2, blocked = ?3, ready = ?4, running = ?5, cancelling = ?6,
                    completed = ?7, failed = ?8, cancelled = ?9 WHERE id = ?1",
        )?
        .execute([1, 0, 0, 0, seen, 0, seen, 0, 0])?;
    transaction
        .prepare_cached("INSERT OR REPLACE INTO turn (queue, priority, tenant, turn) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params!["default", 1, "default", seen])?;
    Ok(())
}
