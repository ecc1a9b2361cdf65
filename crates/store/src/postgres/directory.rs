//! Who may do what, and who is there: tokens and workers.

use std::collections::BTreeMap;

use executr_spec::{Digest, Timestamp, TokenId, WorkerId};
use tokio_postgres::Row;

use super::coding::{from_json, json, name, signed, small, text, unsigned};
use super::core::Core;
use super::fault::Fault;
use super::session::Session;
use crate::{TokenRecord, WorkerRecord};

/// Records workers, or what is new of them.
pub(super) async fn put_workers(core: &Core, session: &mut Session, workers: &[WorkerRecord]) -> Result<(), Fault> {
    let now = session.begin(core.clock_offset()).await?;
    // Each once, and in one order, so that two coordinators don't wait for each other in a circle.
    let mut by_id: BTreeMap<&WorkerId, (&WorkerRecord, u64)> = BTreeMap::new();
    for worker in workers {
        let entry = by_id.entry(&worker.id).or_insert((worker, 0));
        *entry = (worker, entry.1 + worker.jobs_completed);
    }
    let all: Vec<(&WorkerRecord, u64)> = by_id.into_values().collect();
    let column = |value: fn(&WorkerRecord) -> Option<&str>| -> Vec<Option<String>> {
        all.iter().map(|(worker, _)| value(worker).map(text)).collect()
    };
    let queues: Vec<String> = all.iter().map(|(worker, _)| json(&worker.queues)).collect::<Result<_, _>>()?;
    let offers: Vec<String> = all.iter().map(|(worker, _)| json(&worker.offers)).collect::<Result<_, _>>()?;
    session
        .run(
            "INSERT INTO executr.worker AS w (last_seen, id, name, ip, version, slots, queues, offers, draining,
                                              jobs_completed)
             SELECT $10, * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[],
                                       $7::text[], $8::bool[], $9::bigint[])
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, ip = excluded.ip, version = excluded.version,
                 slots = excluded.slots, queues = excluded.queues, offers = excluded.offers,
                 draining = excluded.draining, last_seen = excluded.last_seen,
                 jobs_completed = w.jobs_completed + excluded.jobs_completed",
            &[
                &column(|worker| Some(&worker.id.0)),
                &column(|worker| Some(&worker.name)),
                &column(|worker| worker.ip.as_deref()),
                &column(|worker| worker.version.as_deref()),
                &all.iter().map(|(worker, _)| i64::from(worker.slots)).collect::<Vec<_>>(),
                &queues,
                &offers,
                &all.iter().map(|(worker, _)| worker.draining).collect::<Vec<_>>(),
                &all.iter().map(|(_, completed)| signed(*completed)).collect::<Vec<_>>(),
                &now.0,
            ],
        )
        .await?;
    session.commit().await
}

/// Workers heard of at or after `since`, by id.
pub(super) async fn workers(session: &mut Session, since: Timestamp) -> Result<Vec<WorkerRecord>, Fault> {
    let rows = session
        .rows(
            "SELECT id, name, ip, version, slots, queues, offers, draining, last_seen, jobs_completed
             FROM executr.worker WHERE last_seen >= $1 ORDER BY id",
            &[&since.0],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(WorkerRecord {
                id: WorkerId(row.get(0)),
                name: row.get(1),
                ip: row.get(2),
                version: row.get(3),
                slots: small(row.get(4)),
                queues: from_json(row.get(5))?,
                offers: from_json(row.get(6))?,
                draining: row.get(7),
                last_seen: Timestamp(row.get(8)),
                jobs_completed: unsigned(row.get(9)),
            })
        })
        .collect()
}

/// Records a token.
pub(super) async fn put_token(core: &Core, session: &mut Session, token: &TokenRecord) -> Result<(), Fault> {
    let now = session.begin(core.clock_offset()).await?;
    session
        .run(
            "INSERT INTO executr.token (id, hash, role, name, tenant, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (id) DO UPDATE SET hash = $2, role = $3, name = $4, tenant = $5, created_at = $6, expires_at = $7",
            &[
                &token.id.0,
                &&token.hash.0[..],
                &token.role.as_str(),
                &token.name.as_deref().map(text),
                &token.tenant.as_str(),
                &now.0,
                &token.expires_at.map(|at| at.0),
            ],
        )
        .await?;
    session.commit().await
}

/// The columns of a token, as [`token`] reads them.
const TOKEN: &str = "SELECT id, hash, role, name, tenant, created_at, expires_at FROM executr.token";

/// The valid token with this hash.
pub(super) async fn token_by_hash(
    core: &Core,
    session: &mut Session,
    hash: Digest,
) -> Result<Option<TokenRecord>, Fault> {
    let now = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint + $2";
    let sql = format!("{TOKEN} WHERE hash = $1 AND (expires_at IS NULL OR expires_at > {now})");
    let row = session.row(sql, &[&&hash.0[..], &core.clock_offset()]).await?;
    row.as_ref().map(token).transpose()
}

/// All tokens.
pub(super) async fn tokens(session: &mut Session) -> Result<Vec<TokenRecord>, Fault> {
    session.rows(format!("{TOKEN} ORDER BY created_at, id"), &[]).await?.iter().map(token).collect()
}

/// Revokes a token.
pub(super) async fn revoke_token(session: &mut Session, id: TokenId) -> Result<bool, Fault> {
    Ok(session.run("DELETE FROM executr.token WHERE id = $1", &[&id.0]).await? > 0)
}

fn token(row: &Row) -> Result<TokenRecord, Fault> {
    let hash: &[u8] = row.get(1);
    let hash = hash.try_into().map_err(|_| super::coding::damaged("a token's hash".to_owned()))?;
    Ok(TokenRecord {
        id: TokenId(row.get(0)),
        hash: Digest(hash),
        role: name(row.get(2))?,
        name: row.get(3),
        tenant: name(row.get(4))?,
        created_at: Timestamp(row.get(5)),
        expires_at: row.get::<_, Option<i64>>(6).map(Timestamp),
    })
}
