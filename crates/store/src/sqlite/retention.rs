//! Deleting final jobs.

use executr_spec::{Digest, Timestamp};
use rusqlite::{Connection, params};

use super::error::{damaged, from_sqlite};
use super::index::BucketId;
use super::row::{attempt_keys, attempt_number, integer, job_id, state};
use super::writer::Writer;
use crate::StoreError;

impl Writer<'_> {
    /// Deletes up to `limit` final jobs, oldest first.
    pub(super) fn delete_final(&mut self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        self.forget_workers(before)?;
        let jobs: Vec<(i64, i64)> = {
            let mut statement = self
                .connection
                .prepare_cached(
                    "SELECT completed_at, seq FROM final WHERE completed_at < ?1 ORDER BY completed_at, seq LIMIT ?2",
                )
                .map_err(from_sqlite)?;
            let rows = statement.query_map(params![before.0, limit], |row| Ok((row.get(0)?, row.get(1)?)));
            rows.and_then(Iterator::collect).map_err(from_sqlite)?
        };
        for (completed_at, seq) in &jobs {
            self.delete_one(*completed_at, *seq)?;
        }
        Ok(jobs.len() as u64)
    }

    fn delete_one(&mut self, completed_at: i64, seq: i64) -> Result<(), StoreError> {
        let job = self.find(
            "SELECT j.id, j.bucket, j.state, j.idempotency_key, s.blobs FROM job j JOIN spec s USING (seq) WHERE j.seq = ?1",
            [seq],
            |row| {
                Ok((
                    job_id(row.get(0)?),
                    BucketId(row.get(1)?),
                    row.get::<_, u8>(2)?,
                    row.get::<_, Option<String>>(3)?,
                    row.get::<_, Option<Vec<u8>>>(4)?,
                ))
            },
        )?;
        let (id, bucket, code, idempotency_key, blobs) = job.ok_or_else(|| damaged(format_args!("no job {seq}")))?;
        let (first, last) = attempt_keys(seq);
        // Files first: a crash between leaves a job whose output is gone, never files that nobody knows.
        let files: Vec<u32> = {
            let mut statement = self
                .connection
                .prepare_cached(
                    "SELECT key FROM attempt WHERE key BETWEEN ?1 AND ?2 AND output IS NULL AND output_bytes > 0",
                )
                .map_err(from_sqlite)?;
            let rows = statement.query_map(params![first, last], |row| row.get(0).map(attempt_number));
            rows.and_then(Iterator::collect).map_err(from_sqlite)?
        };
        for attempt in files {
            self.logs.delete(id, attempt)?;
        }
        self.execute("DELETE FROM attempt WHERE key BETWEEN ?1 AND ?2", params![first, last])?;
        self.execute("DELETE FROM spec WHERE seq = ?1", [seq])?;
        self.execute("DELETE FROM job WHERE seq = ?1", [seq])?;
        self.execute("DELETE FROM final WHERE completed_at = ?1 AND seq = ?2", params![completed_at, seq])?;
        if let Some(key) = idempotency_key {
            let tenant = self.index.key(bucket)?;
            self.execute(
                "DELETE FROM idempotency WHERE tenant = ?1 AND key = ?2",
                params![tenant.tenant.as_str(), key],
            )?;
        }
        for digest in blobs.iter().flat_map(|blobs| blobs.chunks_exact(32)) {
            self.execute("DELETE FROM blob_use WHERE digest = ?1 AND seq = ?2", params![digest, seq])?;
        }
        self.index.step(bucket, Some(state(code)?), None)
    }

    /// A blob is there, and was touched now.
    pub(super) fn put_blob(&mut self, digest: Digest, size: u64) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO blob (digest, size, touched_at) VALUES (?1, ?2, ?3)
             ON CONFLICT (digest) DO UPDATE SET touched_at = excluded.touched_at",
            params![digest.0, integer(size), self.now().0],
        )
        .map(drop)
    }

    /// Touches a blob; returns its size.
    pub(super) fn touch_blob(&mut self, digest: Digest) -> Result<Option<u64>, StoreError> {
        self.find(
            "UPDATE blob SET touched_at = ?2 WHERE digest = ?1 RETURNING size",
            params![digest.0, self.now().0],
            |row| row.get(0).map(super::row::unsigned),
        )
    }

    /// Forgets blobs that no job names and nobody touched since `before`; returns which.
    pub(super) fn forget_blobs(&mut self, before: Timestamp) -> Result<Vec<Digest>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached(
                "DELETE FROM blob WHERE touched_at < ?1 AND NOT EXISTS (SELECT 1 FROM blob_use u WHERE u.digest = blob.digest)
                 AND NOT EXISTS (SELECT 1 FROM kept_blob k WHERE k.digest = blob.digest)
                 RETURNING digest",
            )
            .map_err(from_sqlite)?;
        let rows = statement.query_map([before.0], |row| row.get(0).map(Digest));
        rows.and_then(Iterator::collect).map_err(from_sqlite)
    }
}

/// Those of the blobs that have no row.
pub(super) fn without_row(connection: &Connection, blobs: Vec<Digest>) -> Result<Vec<Digest>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM blob WHERE digest = ?1").map_err(from_sqlite)?;
    let mut without = Vec::new();
    for blob in blobs {
        if !statement.exists([blob.0]).map_err(from_sqlite)? {
            without.push(blob);
        }
    }
    Ok(without)
}
