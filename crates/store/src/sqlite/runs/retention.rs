//! Deleting final runs: hidden first, then emptied step by step, so that nobody waits long behind a large one.

use executr_spec::Timestamp;
use rusqlite::params;

use super::load::run_id;
use crate::StoreError;
use crate::sqlite::error::{damaged, from_sqlite};
use crate::sqlite::index::BucketId;
use crate::sqlite::row::{attempt_keys, attempt_number, job_id, state, unsigned};
use crate::sqlite::writer::Writer;

/// So many jobs of a run are deleted in one go.
const JOBS_AT_ONCE: i64 = 500;

impl Writer<'_> {
    /// Hides the oldest final run, if it became final before `before`.
    pub(in crate::sqlite) fn hide_run(&mut self, before: Timestamp) -> Result<bool, StoreError> {
        let oldest = self.find(
            "SELECT completed_at, number FROM run_final WHERE completed_at < ?1 ORDER BY completed_at, number LIMIT 1",
            [before.0],
            |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)),
        )?;
        let Some((completed_at, number)) = oldest else { return Ok(false) };
        self.execute("DELETE FROM run_final WHERE completed_at = ?1 AND number = ?2", params![completed_at, number])?;
        self.execute("UPDATE run SET hidden = 1 WHERE number = ?1", [number])?;
        self.execute(
            "DELETE FROM run_key WHERE (tenant, key) = (SELECT tenant, idempotency_key FROM run WHERE number = ?1)",
            [number],
        )?;
        self.execute("DELETE FROM workspace WHERE number = ?1", [number])?;
        Ok(true)
    }

    /// Deletes some jobs of a hidden run, or, when it has none left, the run. Returns whether there may be more to do.
    pub(in crate::sqlite) fn empty_hidden_run(&mut self) -> Result<bool, StoreError> {
        let hidden = self.find("SELECT number, jobs FROM run WHERE hidden LIMIT 1", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        })?;
        let Some((number, jobs)) = hidden else { return Ok(false) };
        let first = self.find(
            "SELECT seq FROM job WHERE seq > ?1 AND seq <= ?1 + ?2 ORDER BY seq LIMIT 1",
            params![number, jobs],
            |row| row.get::<_, i64>(0),
        )?;
        match first {
            Some(first) => self.delete_jobs(number, first, (first + JOBS_AT_ONCE - 1).min(number + jobs))?,
            None => self.delete_run(number)?,
        }
        Ok(true)
    }

    fn delete_jobs(&mut self, number: i64, first: i64, last: i64) -> Result<(), StoreError> {
        let (first_key, _) = attempt_keys(first);
        let (_, last_key) = attempt_keys(last);
        // Files first: a crash between leaves a job whose output is gone, never files that nobody knows.
        let files: Vec<([u8; 16], i64)> = {
            let mut statement = self.statements.get(
                "SELECT j.id, a.key FROM attempt a CROSS JOIN job j ON j.seq = a.key >> 24
                 WHERE a.key BETWEEN ?1 AND ?2 AND a.output IS NULL AND a.output_bytes > 0",
            )?;
            let rows = statement.query_map([first_key, last_key], |row| Ok((row.get(0)?, row.get(1)?)));
            rows.and_then(Iterator::collect).map_err(from_sqlite)?
        };
        for (id, key) in files {
            self.logs.delete(job_id(id), attempt_number(key))?;
        }
        self.execute("DELETE FROM attempt WHERE key BETWEEN ?1 AND ?2", [first_key, last_key])?;
        let blobs: Vec<(i64, Vec<u8>)> = {
            let mut statement =
                self.statements.get("SELECT seq, blobs FROM spec WHERE seq BETWEEN ?1 AND ?2 AND blobs IS NOT NULL")?;
            let rows = statement.query_map([first, last], |row| Ok((row.get(0)?, row.get(1)?)));
            rows.and_then(Iterator::collect).map_err(from_sqlite)?
        };
        for (seq, blobs) in blobs {
            for digest in blobs.chunks_exact(32) {
                self.execute("DELETE FROM blob_use WHERE digest = ?1 AND seq = ?2", params![digest, seq])?;
            }
        }
        let counts: Vec<(i64, u8, i64)> = {
            let mut statement = self
                .statements
                .get("SELECT bucket, state, count(*) FROM job WHERE seq BETWEEN ?1 AND ?2 GROUP BY bucket, state")?;
            let rows = statement.query_map([first, last], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
            rows.and_then(Iterator::collect).map_err(from_sqlite)?
        };
        for (bucket, code, count) in counts {
            self.index.forget(BucketId(bucket), state(code)?, unsigned(count))?;
        }
        self.execute("DELETE FROM spec WHERE seq BETWEEN ?1 AND ?2", [first, last])?;
        self.execute("DELETE FROM run_job WHERE seq BETWEEN ?1 AND ?2", [first, last])?;
        self.execute("DELETE FROM job WHERE seq BETWEEN ?1 AND ?2", [first, last])?;
        // As many events go with them: a job has two or three.
        self.execute(
            "DELETE FROM run_event WHERE number = ?1 AND event <=
             (SELECT min(event) + 2000 FROM run_event WHERE number = ?1)",
            [number],
        )
        .map(drop)
    }

    fn delete_run(&mut self, number: i64) -> Result<(), StoreError> {
        let blobs = self
            .find("SELECT blobs FROM run_plan WHERE number = ?1", [number], |row| row.get::<_, Option<Vec<u8>>>(0))?;
        let blobs = blobs.ok_or_else(|| damaged(format_args!("no plan of run {number}")))?;
        for digest in blobs.iter().flat_map(|blobs| blobs.chunks_exact(32)) {
            self.execute("DELETE FROM blob_use WHERE digest = ?1 AND seq = ?2", params![digest, number])?;
        }
        self.execute("DELETE FROM run_event WHERE number = ?1", [number])?;
        self.execute("DELETE FROM run_plan WHERE number = ?1", [number])?;
        let id = self.find("DELETE FROM run WHERE number = ?1 RETURNING id", [number], |row| row.get(0).map(run_id))?;
        tracing::debug!(run = ?id, "a final run is deleted");
        Ok(())
    }
}
