//! Blobs and the uploads that they are made of.

use bytes::Bytes;
use executr_spec::{Digest, Timestamp};
use uuid::Uuid;

use super::coding::{signed, unsigned};
use super::core::Core;
use super::fault::Fault;
use super::session::Session;
use crate::{BLOB_CHUNK, StoreError};

/// A piece of an upload.
pub(super) type Append = (Uuid, u64, Bytes);

/// Appends to an upload, or starts it anew.
pub(super) async fn append(core: &Core, session: &mut Session, piece: &Append, again: bool) -> Result<(), Fault> {
    let (upload, offset, bytes) = piece;
    let start = signed(*offset);
    let stop = start.saturating_add(signed(bytes.len() as u64));
    let now = session.begin(core.clock_offset()).await?;
    let end = upload_size(session, *upload).await?;
    if again && end == Some(stop) && *offset != 0 {
        // It was committed, and its answer was lost.
        session.roll_back().await;
        return Ok(());
    }
    if *offset != 0 && end != Some(start) {
        return Err(StoreError::UploadGap { end: unsigned(end.unwrap_or(0)), offset: *offset }.into());
    }
    if *offset == 0 {
        session.run("DELETE FROM executr.blob_chunk WHERE upload = $1", &[upload]).await?;
    }
    session
        .run(
            "INSERT INTO executr.upload (upload, size, touched_at) VALUES ($1, $2, $3)
             ON CONFLICT (upload) DO UPDATE SET size = $2, touched_at = $3",
            &[upload, &stop, &now.0],
        )
        .await?;
    let mut at = start;
    for part in bytes.chunks(BLOB_CHUNK) {
        let sql = "INSERT INTO executr.blob_chunk (upload, start, bytes) VALUES ($1, $2, $3)";
        session.run(sql, &[upload, &at, &part]).await?;
        at += signed(part.len() as u64);
    }
    session.commit().await
}

async fn upload_size(session: &mut Session, upload: Uuid) -> Result<Option<i64>, Fault> {
    let row = session.row("SELECT size FROM executr.upload WHERE upload = $1 FOR UPDATE", &[&upload]).await?;
    Ok(row.map(|row| row.get(0)))
}

/// Makes an upload a blob.
pub(super) async fn finish(core: &Core, session: &mut Session, blob: &(Uuid, Digest, u64)) -> Result<(), Fault> {
    let (upload, digest, size) = blob;
    let digest = &digest.0[..];
    let now = session.begin(core.clock_offset()).await?;
    let there = upload_size(session, *upload).await?;
    let known = session
        .run("UPDATE executr.blob SET touched_at = greatest(touched_at, $2) WHERE digest = $1", &[&digest, &now.0])
        .await?
        > 0;
    if there.unwrap_or(0) != signed(*size) && !(known && there.is_none()) {
        let end = unsigned(there.unwrap_or(0));
        return Err(StoreError::UploadGap { end, offset: *size }.into());
    }
    let taken = !known
        && session
            .run(
                "INSERT INTO executr.blob (digest, upload, size, touched_at) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (digest) DO UPDATE SET touched_at = $4",
                &[&digest, upload, &signed(*size), &now.0],
            )
            .await?
            > 0;
    session.run("DELETE FROM executr.upload WHERE upload = $1", &[upload]).await?;
    if taken || there.is_some() {
        session
            .run(
                "DELETE FROM executr.blob_chunk WHERE upload = $1
                 AND NOT EXISTS (SELECT FROM executr.blob WHERE digest = $2 AND upload = $1)",
                &[upload, &digest],
            )
            .await?;
    }
    session.commit().await
}

/// Forgets an upload.
pub(super) async fn drop_upload(session: &mut Session, upload: Uuid) -> Result<(), Fault> {
    session
        .run(
            "WITH gone AS (DELETE FROM executr.upload WHERE upload = $1 RETURNING upload)
             DELETE FROM executr.blob_chunk c USING gone WHERE c.upload = gone.upload",
            &[&upload],
        )
        .await?;
    Ok(())
}

/// The size of a blob, which is kept for another while.
pub(super) async fn touch(core: &Core, session: &mut Session, digest: Digest) -> Result<Option<u64>, Fault> {
    let now = session.begin(core.clock_offset()).await?;
    let row = session
        .row(
            "UPDATE executr.blob SET touched_at = greatest(touched_at, $2) WHERE digest = $1 RETURNING size",
            &[&&digest.0[..], &now.0],
        )
        .await?;
    session.commit().await?;
    Ok(row.map(|row| unsigned(row.get(0))))
}

/// Up to [`BLOB_CHUNK`] bytes of a blob.
pub(super) async fn read(session: &mut Session, digest: Digest, offset: u64) -> Result<Option<Bytes>, Fault> {
    let row = session
        .row(
            "SELECT b.size, chunk.start, chunk.bytes FROM executr.blob b
             LEFT JOIN LATERAL (
                 SELECT c.start, c.bytes FROM executr.blob_chunk c WHERE c.upload = b.upload AND c.start <= $2
                 ORDER BY c.start DESC LIMIT 1) AS chunk ON true
             WHERE b.digest = $1",
            &[&&digest.0[..], &signed(offset)],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let Some(start) = row.get::<_, Option<i64>>(1) else { return Ok(Some(Bytes::new())) };
    let bytes: &[u8] = row.get(2);
    let skip = usize::try_from(offset - unsigned(start)).unwrap_or(usize::MAX).min(bytes.len());
    Ok(Some(Bytes::copy_from_slice(&bytes[skip..])))
}

/// So many blobs one transaction deletes at most, and fewer when they are together larger than so many bytes.
const MOST_DELETED: (i64, i64) = (64, 16 << 20);

/// Deletes some of the blobs that nobody names or touched, and of the old uploads. `after` is where the last such command
/// ended. Says how many, and where it ended unless there are no more.
pub(super) async fn delete_some(
    session: &mut Session,
    before: Timestamp,
    after: &[u8],
) -> Result<(u64, Option<Vec<u8>>), Fault> {
    session.begin(0).await?;
    let deleted = delete_after(session, before, after).await?;
    session.commit().await?;
    Ok(deleted)
}

async fn delete_after(session: &mut Session, before: Timestamp, after: &[u8]) -> Result<(u64, Option<Vec<u8>>), Fault> {
    let (most_blobs, most_bytes) = MOST_DELETED;
    // A submission that names a blob touches it before: it is younger than `before` then.
    let blobs = session
        .rows(
            "WITH old AS MATERIALIZED (
                 SELECT digest, sum(size) OVER (ORDER BY digest) - size AS earlier
                 FROM (SELECT digest, size FROM executr.blob b WHERE b.digest > $2 AND b.touched_at < $1
                       AND NOT EXISTS (SELECT FROM executr.job_blob j WHERE j.digest = b.digest)
                       AND NOT EXISTS (SELECT FROM executr.kept_blob k WHERE k.digest = b.digest)
                       ORDER BY digest LIMIT $3) AS b)
             DELETE FROM executr.blob b USING old
             WHERE b.digest = old.digest AND old.earlier < $4::bigint AND b.touched_at < $1 RETURNING b.upload, b.digest",
            &[&before.0, &after, &most_blobs, &most_bytes],
        )
        .await?;
    let uploads = session
        .rows(
            "DELETE FROM executr.upload WHERE upload = ANY(ARRAY(
                 SELECT upload FROM executr.upload WHERE touched_at < $1 LIMIT $2)) AND touched_at < $1 RETURNING upload",
            &[&before.0, &most_blobs],
        )
        .await?;
    let gone: Vec<Uuid> = blobs.iter().chain(&uploads).map(|row| row.get(0)).collect();
    if !gone.is_empty() {
        session.run("DELETE FROM executr.blob_chunk WHERE upload = ANY($1)", &[&gone]).await?;
    }
    let last = blobs.iter().map(|row| row.get::<_, Vec<u8>>(1)).max();
    Ok((gone.len() as u64, last.or_else(|| (!uploads.is_empty()).then(|| after.to_vec()))))
}
