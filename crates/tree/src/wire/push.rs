//! Sending what a coordinator lacks.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use executr_api::{ApiError, ByteStream, ErrorCode, MAX_ASKED_BLOBS};
use executr_spec::Digest;
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Progress, RemoteBlobs, TOGETHER, TransferError, Watch};
use crate::source::BlobSource;

/// Sent piece by piece, each so long.
const PIECE: usize = 256 << 10;
/// Pieces that are read ahead of what is sent.
const AHEAD: usize = 4;

/// Sends those of `blobs`, and then the manifest `tree`, that the coordinator lacks. Returns what went over.
///
/// # Errors
/// [`TransferError`]; what went over before stays there for a day, so that a second try goes on where this one ended.
pub async fn push(
    remote: &Arc<dyn RemoteBlobs>,
    source: &Arc<dyn BlobSource>,
    tree: Digest,
    blobs: Vec<Digest>,
    watch: Watch<'_>,
) -> Result<Progress, TransferError> {
    let mut missing = VecDeque::new();
    for asked in blobs.chunks(MAX_ASKED_BLOBS) {
        missing.extend(remote.missing(asked.to_vec()).await?);
    }
    let mut progress = Progress { of_blobs: missing.len() as u64 + 1, ..Progress::default() };
    let mut going = JoinSet::new();
    loop {
        while going.len() < TOGETHER
            && let Some(digest) = missing.pop_front()
        {
            going.spawn(send(Arc::clone(remote), Arc::clone(source), digest));
        }
        let Some(sent) = going.join_next().await else { break };
        progress.bytes += sent.map_err(broken)??;
        progress.blobs += 1;
        watch(progress);
    }
    if remote.missing(vec![tree]).await?.is_empty() {
        progress.of_blobs -= 1;
    } else {
        progress.bytes += send(Arc::clone(remote), Arc::clone(source), tree).await?;
        progress.blobs += 1;
    }
    watch(progress);
    Ok(progress)
}

/// A task ended without an answer.
pub(super) fn broken(error: tokio::task::JoinError) -> ApiError {
    ApiError::new(ErrorCode::Internal, format!("a transfer broke off: {error}"))
}

/// Sends one blob; how long it is.
async fn send(remote: Arc<dyn RemoteBlobs>, source: Arc<dyn BlobSource>, digest: Digest) -> Result<u64, TransferError> {
    let opened = super::blocking(move || source.open_blob(digest)).await?;
    let reader = opened.map_err(unreadable)?.ok_or(TransferError::Lost(digest))?;
    send_bytes(&*remote, digest, reader).await.map_err(TransferError::from)
}

/// Sends what `reader` reads; how many bytes.
pub(super) async fn send_bytes(
    remote: &dyn RemoteBlobs,
    digest: Digest,
    reader: impl Read + Send + 'static,
) -> Result<u64, ApiError> {
    let (pieces, counted) = read_ahead(reader);
    remote.put(digest, pieces).await?;
    Ok(counted.load(std::sync::atomic::Ordering::Relaxed))
}

/// The bytes of `reader` as a stream, read on a thread of their own, and how many it has read.
fn read_ahead(mut reader: impl Read + Send + 'static) -> (ByteStream, Arc<std::sync::atomic::AtomicU64>) {
    let (send, receive) = mpsc::channel::<Result<Bytes, ApiError>>(AHEAD);
    let counter = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = Arc::clone(&counter);
    tokio::task::spawn_blocking(move || {
        loop {
            let piece = read_piece(&mut reader).map_err(unreadable);
            let is_last = piece.as_ref().map_or(true, |piece| piece.len() < PIECE);
            if let Ok(piece) = &piece {
                if piece.is_empty() {
                    return;
                }
                counted.fetch_add(piece.len() as u64, std::sync::atomic::Ordering::Relaxed);
            }
            // Whoever stopped listening has a reason of his own.
            if send.blocking_send(piece).is_err() || is_last {
                return;
            }
        }
    });
    let pieces = stream::unfold(receive, |mut receive| async move { Some((receive.recv().await?, receive)) });
    (pieces.boxed(), counter)
}

fn read_piece(reader: &mut impl Read) -> std::io::Result<Bytes> {
    let mut piece = Vec::with_capacity(PIECE);
    reader.by_ref().take(PIECE as u64).read_to_end(&mut piece)?;
    Ok(piece.into())
}

pub(super) fn unreadable(error: std::io::Error) -> ApiError {
    ApiError::new(ErrorCode::Conflict, format!("a file of the tree can't be read: {error}"))
}
