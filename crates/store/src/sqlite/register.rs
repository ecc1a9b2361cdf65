//! Workers and access tokens.

use executr_spec::{Digest, Timestamp, TokenId, WorkerId};
use rusqlite::{Connection, Row, params};
use uuid::Uuid;

use super::error::from_sqlite;
use super::row::{digest, get, integer, json, parsed, time, to_json, unsigned};
use super::writer::Writer;
use crate::{StoreError, TokenRecord, WorkerRecord};

impl Writer<'_> {
    /// Records workers.
    pub(super) fn put_workers(&mut self, workers: &[WorkerRecord]) -> Result<(), StoreError> {
        for worker in workers {
            self.execute(
                "INSERT INTO worker VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
                 ON CONFLICT (id) DO UPDATE SET name = excluded.name, ip = excluded.ip, version = excluded.version,
                     slots = excluded.slots, queues = excluded.queues, offers = excluded.offers,
                     draining = excluded.draining, last_seen = excluded.last_seen,
                     jobs_completed = jobs_completed + excluded.jobs_completed",
                params![
                    worker.id.0,
                    worker.name,
                    worker.ip,
                    worker.version,
                    worker.slots,
                    to_json(&worker.queues)?,
                    to_json(&worker.offers)?,
                    worker.draining,
                    self.now().0,
                    integer(worker.jobs_completed),
                ],
            )?;
        }
        Ok(())
    }

    /// Forgets workers not heard of since `before`.
    pub(super) fn forget_workers(&self, before: Timestamp) -> Result<(), StoreError> {
        self.execute("DELETE FROM worker WHERE last_seen < ?1", [before.0]).map(drop)
    }

    /// Records a token.
    pub(super) fn put_token(&mut self, token: &TokenRecord) -> Result<(), StoreError> {
        self.execute(
            "INSERT OR REPLACE INTO token VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                token.id.0.as_bytes(),
                token.hash.0,
                token.role.as_str(),
                token.name,
                token.tenant.as_str(),
                self.now().0,
                token.expires_at.map(|at| at.0),
            ],
        )
        .map(drop)
    }

    /// Revokes a token.
    pub(super) fn revoke_token(&mut self, id: TokenId) -> Result<bool, StoreError> {
        self.execute("DELETE FROM token WHERE id = ?1", [id.0.as_bytes()]).map(|deleted| deleted > 0)
    }
}

/// Workers heard of at or after `since`.
pub(super) fn workers(connection: &Connection, since: Timestamp) -> Result<Vec<WorkerRecord>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT * FROM worker WHERE last_seen >= ?1 ORDER BY id").map_err(from_sqlite)?;
    let mut rows = statement.query([since.0]).map_err(from_sqlite)?;
    let mut workers = Vec::new();
    while let Some(row) = rows.next().map_err(from_sqlite)? {
        workers.push(WorkerRecord {
            id: WorkerId(get(row, 0)?),
            name: get(row, 1)?,
            ip: get(row, 2)?,
            version: get(row, 3)?,
            slots: get(row, 4)?,
            queues: json(&get::<String>(row, 5)?)?,
            offers: json(&get::<String>(row, 6)?)?,
            draining: get(row, 7)?,
            last_seen: Timestamp(get(row, 8)?),
            jobs_completed: unsigned(get(row, 9)?),
        });
    }
    Ok(workers)
}

fn token(row: &Row<'_>) -> Result<TokenRecord, StoreError> {
    Ok(TokenRecord {
        id: TokenId(Uuid::from_bytes(get(row, 0)?)),
        hash: digest(get(row, 1)?),
        role: parsed(&get::<String>(row, 2)?)?,
        name: get(row, 3)?,
        tenant: parsed(&get::<String>(row, 4)?)?,
        created_at: Timestamp(get(row, 5)?),
        expires_at: time(get(row, 6)?),
    })
}

/// The token whose secret has this digest, unless it is expired.
pub(super) fn token_by_hash(
    connection: &Connection,
    hash: Digest,
    now: Timestamp,
) -> Result<Option<TokenRecord>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT * FROM token WHERE hash = ?1 AND (expires_at IS NULL OR expires_at > ?2)")
        .map_err(from_sqlite)?;
    let mut rows = statement.query(params![hash.0, now.0]).map_err(from_sqlite)?;
    rows.next().map_err(from_sqlite)?.map(token).transpose()
}

/// All tokens.
pub(super) fn tokens(connection: &Connection) -> Result<Vec<TokenRecord>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT * FROM token ORDER BY created_at, id").map_err(from_sqlite)?;
    let mut rows = statement.query([]).map_err(from_sqlite)?;
    let mut tokens = Vec::new();
    while let Some(row) = rows.next().map_err(from_sqlite)? {
        tokens.push(token(row)?);
    }
    Ok(tokens)
}
