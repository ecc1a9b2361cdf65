//! The statements of the embedded store for one job's whole life, in a bare loop: same schema, same batches, same
//! durability; no queue around them. What the store is measured against.

use std::io;

use rusqlite::{Connection, params};

use crate::in_process::BATCH;

/// The store's own schema.
const SCHEMA: &str = include_str!("../../crates/store/src/sqlite/schema/0001_first.sql");
const SPEC: &str = r#"{"type":"command","steps":[{"argv":["true","xxxxxxxxxx"]}],"priority":"background","max_retries":0,"queue":"default"}"#;

/// Jobs a second: recorded, handed out and finished, each in batches with a commit of its own.
///
/// # Errors
/// When SQLite reports one.
pub fn per_second(jobs: u32) -> io::Result<f64> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("queue.db");
    run(&path, jobs).map_err(io::Error::other)
}

fn run(path: &std::path::Path, jobs: u32) -> rusqlite::Result<f64> {
    let mut connection = Connection::open(path)?;
    connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")?;
    connection.execute_batch(SCHEMA)?;
    connection.set_prepared_statement_cache_capacity(32);
    let start = std::time::Instant::now();
    for first in (0..jobs).step_by(BATCH as usize) {
        let seqs = first..jobs.min(first + BATCH);
        submit(&mut connection, seqs.clone())?;
        let claimed = claim(&mut connection)?;
        finish(&mut connection, &claimed)?;
    }
    Ok(f64::from(jobs) / start.elapsed().as_secs_f64())
}

fn submit(connection: &mut Connection, seqs: std::ops::Range<u32>) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    {
        let mut job = transaction.prepare_cached(
            "INSERT INTO job VALUES (?1, ?2, 1, 'command', 2, 1, NULL, NULL, NULL, 0, 0, 0, 0, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL)",
        )?;
        let mut spec = transaction.prepare_cached("INSERT INTO spec VALUES (?1, 0, 1, 60, NULL, ?2)")?;
        let mut ready = transaction.prepare_cached("INSERT INTO ready (bucket, seq) VALUES (1, ?1)")?;
        for seq in seqs {
            job.execute(params![seq, uuid::Uuid::now_v7().as_bytes()])?;
            spec.execute(params![seq, SPEC])?;
            ready.execute([seq])?;
        }
    }
    transaction.commit()
}

struct Claimed {
    seq: i64,
    lease: [u8; 16],
    job: [u8; 16],
}

fn claim(connection: &mut Connection) -> rusqlite::Result<Vec<Claimed>> {
    let transaction = connection.transaction()?;
    let mut claimed = Vec::new();
    {
        let mut oldest = transaction.prepare_cached("SELECT seq FROM ready WHERE bucket = 1 ORDER BY seq LIMIT ?1")?;
        let seqs = oldest.query_map([BATCH], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
        let mut read = transaction.prepare_cached(
            "SELECT j.id, j.attempt, j.failures, j.lost_leases, j.max_retries, j.concurrency_key IS NOT NULL,
                    s.backoff_kind, s.backoff_min, s.backoff_max, j.created_at, s.spec
             FROM job j JOIN spec s USING (seq) WHERE j.seq = ?1",
        )?;
        let mut leave = transaction.prepare_cached("DELETE FROM ready WHERE bucket = 1 AND seq = ?1")?;
        let mut lease =
            transaction.prepare_cached("INSERT INTO lease VALUES (?1, ?2, 1, 'bare', NULL, 1, 2, 1, 1, 0, 0)")?;
        for seq in seqs {
            let (job, spec) = read.query_row([seq], |row| Ok((row.get(0)?, row.get::<_, String>(10)?)))?;
            std::hint::black_box(spec);
            leave.execute([seq])?;
            let id = uuid::Uuid::new_v4().into_bytes();
            lease.execute(params![seq, id])?;
            claimed.push(Claimed { seq, lease: id, job });
        }
    }
    transaction.commit()?;
    Ok(claimed)
}

fn finish(connection: &mut Connection, claimed: &[Claimed]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    {
        let mut lease = transaction.prepare_cached("DELETE FROM lease WHERE seq = ?1")?;
        let mut attempt = transaction.prepare_cached(
            "INSERT INTO attempt VALUES (?1, ?2, 'bare', NULL, 1, 2, 1, 0, NULL, NULL, NULL, 0, NULL)",
        )?;
        let mut job = transaction.prepare_cached(
            "UPDATE job SET state = 5, started_at = 1, completed_at = 2, attempt = 1, worker = 'bare', exit_code = 0 WHERE seq = ?1",
        )?;
        let mut last = transaction.prepare_cached("INSERT INTO final (completed_at, seq) VALUES (?1, ?2)")?;
        for Claimed { seq, lease: id, job: job_id } in claimed {
            std::hint::black_box(job_id);
            lease.execute([seq])?;
            attempt.execute(params![(seq << 24) + 1, id])?;
            job.execute([seq])?;
            last.execute([2, *seq])?;
        }
    }
    transaction.commit()
}
