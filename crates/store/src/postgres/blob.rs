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

/// Deletes blobs that nobody names or touched, and old uploads.
pub(super) async fn delete(session: &mut Session, before: Timestamp) -> Result<u64, Fault> {
    // A submission that names a blob touches it before: it is younger than `before` then.
    session.begin(0).await?;
    let blobs = session
        .rows(
            "DELETE FROM executr.blob b WHERE b.touched_at < $1
             AND NOT EXISTS (SELECT FROM executr.job_blob j WHERE j.digest = b.digest) RETURNING b.upload",
            &[&before.0],
        )
        .await?;
    let uploads =
        session.rows("DELETE FROM executr.upload WHERE touched_at < $1 RETURNING upload", &[&before.0]).await?;
    let gone: Vec<Uuid> = blobs.iter().chain(&uploads).map(|row| row.get(0)).collect();
    if !gone.is_empty() {
        session.run("DELETE FROM executr.blob_chunk WHERE upload = ANY($1)", &[&gone]).await?;
    }
    session.commit().await?;
    Ok(gone.len() as u64)
}
