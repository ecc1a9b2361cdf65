//! Bringing what a directory of blobs lacks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use executr_api::ByteStream;
use executr_spec::Digest;
use futures_util::StreamExt as _;
use tokio::task::JoinSet;

use super::push::broken;
use super::{Progress, RemoteBlobs, TOGETHER, TransferError, Watch, blocking};
use crate::blob_dir::{BlobDir, BlobDirError};
use crate::blob_lease::BlobLease;
use crate::manifest::Manifest;
use crate::partial::Partial;

/// How often it is looked whether another process has finished bringing a blob.
const OTHER_PROCESS: Duration = Duration::from_millis(50);
/// Bytes are written in pieces of about this length.
const PIECE: usize = 1 << 20;

/// A tree whose blobs are here, and stay while this lives.
#[derive(Debug)]
pub struct Fetched {
    /// The tree.
    pub manifest: Manifest,
    /// What had to be brought.
    pub brought: Progress,
    _leases: [BlobLease; 2],
}

/// Brings the tree into a directory of blobs, as far as it isn't there, and keeps it from being evicted.
///
/// # Errors
/// [`TransferError`]; what was brought before stays, also half a blob.
pub async fn fetch(
    remote: &Arc<dyn RemoteBlobs>,
    blobs: &BlobDir,
    tree: Digest,
    watch: Watch<'_>,
) -> Result<Fetched, TransferError> {
    let directory = blobs.clone();
    let first = blocking(move || directory.lease(&[tree])).await??;
    let mut brought = bring_all(remote, blobs, vec![tree], watch).await?;
    let directory = blobs.clone();
    let bytes = blocking(move || directory.read(tree)).await??.ok_or(TransferError::Lost(tree))?;
    let parsed = blocking(move || {
        let found = Digest::of(&bytes);
        (found, Manifest::parse(&bytes))
    });
    let (found, parsed) = parsed.await?;
    if found != tree {
        // Somebody changed it since it was brought.
        blobs.discard(tree)?;
        return Err(BlobDirError::Mismatch { expected: tree, found }.into());
    }
    let manifest = parsed.map_err(|source| TransferError::Manifest { digest: tree, source })?;
    let (directory, wanted) = (blobs.clone(), manifest.blobs());
    let (second, missing) = blocking(move || {
        let lease = directory.lease(&wanted)?;
        let now = SystemTime::now();
        let mut missing = Vec::new();
        for digest in wanted {
            if directory.has(digest) {
                directory.touch(digest, now)?;
            } else {
                missing.push(digest);
            }
        }
        directory.touch(tree, now)?;
        Ok::<_, BlobDirError>((lease, missing))
    })
    .await??;
    let rest = bring_all(remote, blobs, missing, watch).await?;
    brought.blobs += rest.blobs;
    brought.of_blobs += rest.of_blobs;
    brought.bytes += rest.bytes;
    Ok(Fetched { manifest, brought, _leases: [first, second] })
}

/// Brings blobs, several at a time. Those that come whole are named together, after one sync for all.
async fn bring_all(
    remote: &Arc<dyn RemoteBlobs>,
    blobs: &BlobDir,
    missing: Vec<Digest>,
    watch: Watch<'_>,
) -> Result<Progress, TransferError> {
    let mut progress = Progress { of_blobs: missing.len() as u64, ..Progress::default() };
    let mut missing = VecDeque::from(missing);
    let mut going = JoinSet::new();
    let mut whole = Vec::new();
    loop {
        while going.len() < TOGETHER
            && let Some(digest) = missing.pop_front()
        {
            going.spawn(bring(Arc::clone(remote), blobs.clone(), digest));
        }
        let Some(done) = going.join_next().await else { break };
        if let Some((partial, bytes)) = done.map_err(broken)?? {
            whole.push(partial);
            progress.bytes += bytes;
        }
        progress.blobs += 1;
        watch(progress);
    }
    let directory = blobs.clone();
    blocking(move || directory.commit_all(whole)).await??;
    Ok(progress)
}

/// Brings one blob and how many bytes came; `None` when it is there, or was brought by another.
async fn bring(
    remote: Arc<dyn RemoteBlobs>,
    blobs: BlobDir,
    digest: Digest,
) -> Result<Option<(Partial, u64)>, TransferError> {
    loop {
        let directory = blobs.clone();
        let begun = blocking(move || if directory.has(digest) { Ok(None) } else { directory.bring(digest).map(Some) });
        let mut partial = match begun.await?? {
            None => return Ok(None),
            Some(Some(partial)) => partial,
            // Another process is at it, or has just finished.
            Some(None) => {
                tokio::time::sleep(OTHER_PROCESS).await;
                continue;
            }
        };
        let begin = partial.length();
        let mut bytes: ByteStream = remote.read(digest, begin).await?;
        let mut gathered = Vec::new();
        loop {
            let part = bytes.next().await.transpose()?;
            let is_end = part.is_none();
            gathered.extend(part);
            if is_end || gathered.iter().map(bytes::Bytes::len).sum::<usize>() >= PIECE {
                let pieces = std::mem::take(&mut gathered);
                let write = move || {
                    for piece in pieces {
                        partial.append(&piece)?;
                    }
                    Ok::<_, BlobDirError>(partial)
                };
                partial = blocking(write).await??;
            }
            if is_end {
                let length = partial.length();
                return Ok(Some((partial, length - begin)));
            }
        }
    }
}
