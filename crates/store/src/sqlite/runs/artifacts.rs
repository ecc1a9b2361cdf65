//! What jobs of runs hand on: outputs, artifacts, and the blobs kept for those.

use std::collections::BTreeMap;

use executr_api::Artifact;
use executr_spec::{Digest, JobId, Tenant, Timestamp};
use rusqlite::{Connection, Row, params};

use super::live::Place;
use super::load::run_id;
use crate::sqlite::error::from_sqlite;
use crate::sqlite::query::collect;
use crate::sqlite::row::{digest, get, integer, parsed, to_json, unsigned};
use crate::sqlite::writer::Writer;
use crate::{ArtifactRecord, StoreError};

/// An artifact in columns from `first` on: name, tree, size, files.
pub(super) fn artifact(row: &Row<'_>, first: usize) -> Result<Artifact, StoreError> {
    Ok(Artifact {
        name: get(row, first)?,
        tree: digest(get(row, first + 1)?),
        size: unsigned(get(row, first + 2)?),
        files: unsigned(get(row, first + 3)?),
    })
}

impl Writer<'_> {
    /// Records what a job handed on.
    pub(in crate::sqlite) fn record_handed(
        &mut self,
        place: Place,
        outputs: &BTreeMap<String, String>,
        artifacts: &[Artifact],
    ) -> Result<(), StoreError> {
        let seq = place.seq();
        if !outputs.is_empty() {
            self.execute("UPDATE run_job SET outputs = ?2 WHERE seq = ?1", params![seq, to_json(outputs)?])?;
            self.runs.node_mut(place)?.has_outputs = true;
        }
        for artifact in artifacts {
            self.execute(
                "INSERT OR REPLACE INTO artifact
                 SELECT r.number, ?2, ?3, r.tenant, r.id, r.name, j.name, ?4, ?5, ?6, ?7
                 FROM run r, run_job j WHERE r.number = ?1 AND j.seq = ?2",
                params![
                    place.number,
                    seq,
                    artifact.name,
                    artifact.tree.0,
                    integer(artifact.size),
                    integer(artifact.files),
                    self.now().0
                ],
            )?;
        }
        Ok(())
    }

    /// Keeps blobs for an artifact of a running job.
    pub(super) fn keep_artifact(&mut self, job: JobId, tree: Digest, blobs: &[Digest]) -> Result<(), StoreError> {
        let seq = self.leases.get(job).map(|live| live.seq).filter(|seq| self.runs.place(*seq).is_some());
        let Some(seq) = seq else { return Ok(()) };
        self.runs.keeping.insert(seq);
        self.keep_blobs(seq, tree, blobs)
    }

    /// Keeps blobs for an artifact of this job.
    pub(super) fn keep_blobs(&self, seq: i64, tree: Digest, blobs: &[Digest]) -> Result<(), StoreError> {
        for Digest(blob) in blobs {
            self.execute(
                "INSERT OR IGNORE INTO kept_blob (digest, seq, tree) VALUES (?1, ?2, ?3)",
                params![blob, seq, tree.0],
            )?;
        }
        Ok(())
    }

    /// The job's attempt ended: what was kept and isn't named is let go.
    pub(in crate::sqlite) fn let_go_of_blobs(&mut self, place: Place) -> Result<(), StoreError> {
        let seq = place.seq();
        if !self.runs.keeping.contains(&seq) {
            return Ok(());
        }
        self.runs.get_mut(place.number)?;
        self.runs.keeping.remove(&seq);
        self.execute(
            "DELETE FROM kept_blob
             WHERE seq = ?1 AND tree NOT IN (SELECT tree FROM artifact WHERE number = ?2 AND seq = ?1)",
            params![seq, place.number],
        )
        .map(drop)
    }

    /// Deletes up to `limit` artifacts of runs that are final or gone, oldest first.
    pub(super) fn delete_artifacts(&mut self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let old: Vec<(i64, i64, String, [u8; 32])> = {
            let mut statement = self.statements.get(
                "SELECT a.number, a.seq, a.name, a.tree FROM artifact a LEFT JOIN run r USING (number)
                 WHERE a.created_at < ?1 AND (r.number IS NULL OR r.completed_at IS NOT NULL)
                 ORDER BY a.created_at, a.number, a.seq, a.name LIMIT ?2",
            )?;
            let rows = statement
                .query_map(params![before.0, limit], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)));
            rows.and_then(Iterator::collect).map_err(from_sqlite)?
        };
        for (number, seq, name, tree) in &old {
            self.execute(
                "DELETE FROM artifact WHERE number = ?1 AND seq = ?2 AND name = ?3",
                params![number, seq, name],
            )?;
            // Another of the job's artifacts may be the same tree.
            self.execute(
                "DELETE FROM kept_blob WHERE seq = ?2 AND tree = ?3
                 AND NOT EXISTS (SELECT 1 FROM artifact WHERE number = ?1 AND seq = ?2 AND tree = ?3)",
                params![number, seq, tree],
            )?;
        }
        Ok(old.len() as u64)
    }
}

/// Artifacts, newest run first, then by place and name.
pub(super) fn artifacts(
    connection: &Connection,
    tenant: Option<&Tenant>,
    run: Option<executr_spec::RunId>,
    limit: u32,
) -> Result<Vec<ArtifactRecord>, StoreError> {
    let sql = match run {
        Some(_) => {
            "SELECT tenant, run, run_name, job, created_at, name, tree, size, files FROM artifact
             WHERE run = ?1 AND (?2 IS NULL OR tenant = ?2) ORDER BY seq, name LIMIT ?3"
        }
        None => {
            "SELECT tenant, run, run_name, job, created_at, name, tree, size, files FROM artifact
             WHERE ?1 IS NULL AND (?2 IS NULL OR tenant = ?2) ORDER BY number DESC, seq, name LIMIT ?3"
        }
    };
    let run = run.map(|run| *run.0.as_bytes());
    collect(connection, sql, params![run, tenant.map(Tenant::as_str), limit], |row| {
        Ok(ArtifactRecord {
            tenant: parsed(&get::<String>(row, 0)?)?,
            run: run_id(get(row, 1)?),
            run_name: get(row, 2)?,
            job: get(row, 3)?,
            artifact: artifact(row, 5)?,
            created_at: Timestamp(get(row, 4)?),
        })
    })
}
