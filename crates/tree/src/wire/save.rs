//! Making a tree and sending it at the same time.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use executr_api::{ApiError, ErrorCode};
use executr_spec::Digest;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::push::{broken, send_bytes, unreadable};
use super::{Progress, RemoteBlobs, TOGETHER, TransferError, Watch, blocking};
use crate::manifest::Manifest;
use crate::snapshot::{SnapshotOptions, snapshot_telling};
use crate::source::{MadeTree, OfferedBlob};

/// So many blobs are asked about at once, when so many are known.
const ASKED: usize = 256;

/// A tree that is at the coordinator.
#[derive(Clone, Debug)]
pub struct Saved {
    /// Its digest.
    pub digest: Digest,
    /// What it is.
    pub manifest: Manifest,
    /// What had to be sent.
    pub sent: Progress,
}

/// Makes a tree of what stands at `path` and brings it to the coordinator. Nothing is copied on the way: blobs are sent from
/// the files themselves, while others are still being read.
///
/// # Errors
/// [`TransferError`]; what went over before stays there for a day.
pub async fn save(
    remote: &Arc<dyn RemoteBlobs>,
    path: PathBuf,
    options: SnapshotOptions,
    watch: Watch<'_>,
) -> Result<Saved, TransferError> {
    let (tell, told) = mpsc::unbounded_channel();
    let making = tokio::task::spawn_blocking(move || {
        // Nobody listens any more after an error.
        snapshot_telling(&path, &options, &|blob| drop(tell.send(blob.into())))
    });
    let made = async { Ok::<_, TransferError>(MadeTree::from(making.await.map_err(broken)??)) };
    save_offered(remote, told, made, watch).await
}

/// Brings a tree to the coordinator that is made meanwhile, by `making`, which offers its blobs through `told` and then lets
/// go of the other end.
///
/// # Errors
/// That of `making`, or a [`TransferError`]; what went over before stays there for a day.
pub async fn save_offered<E: From<TransferError>>(
    remote: &Arc<dyn RemoteBlobs>,
    mut told: mpsc::UnboundedReceiver<OfferedBlob>,
    making: impl Future<Output = Result<MadeTree, E>>,
    watch: Watch<'_>,
) -> Result<Saved, E> {
    let sending = async {
        let mut sent = Progress::default();
        let mut failed: HashMap<Digest, ApiError> = HashMap::new();
        let mut seen = HashSet::new();
        let mut going: JoinSet<(Digest, Result<u64, ApiError>)> = JoinSet::new();
        let mut batch = Vec::new();
        while told.recv_many(&mut batch, ASKED).await > 0 {
            let mut new: HashMap<Digest, OfferedBlob> = batch.drain(..).map(|blob| (blob.digest, blob)).collect();
            new.retain(|digest, _| seen.insert(*digest));
            let missing = remote.missing(new.keys().copied().collect()).await?;
            sent.of_blobs += missing.len() as u64;
            for digest in missing {
                while going.len() >= TOGETHER {
                    finish_one(&mut going, &mut sent, &mut failed).await?;
                    watch(sent);
                }
                let Some(blob) = new.remove(&digest) else { continue };
                let remote = Arc::clone(remote);
                going.spawn(async move { (digest, send_offered(&*remote, blob).await) });
            }
        }
        while !going.is_empty() {
            finish_one(&mut going, &mut sent, &mut failed).await?;
            watch(sent);
        }
        Ok::<_, TransferError>((sent, failed))
    };
    tokio::pin!(sending, making);
    let (made, (mut sent, mut failed)) = tokio::select! {
        made = &mut making => (made?, sending.await?),
        // Who makes it has offered all there is, or nobody can be told.
        sent = &mut sending => {
            let sent = sent?;
            (making.await?, sent)
        }
    };
    // What changed while the tree was made may have been told of in a form that is no part of it.
    if let Some(error) = made.manifest.blobs().iter().find_map(|blob| failed.remove(blob)) {
        return Err(TransferError::from(error).into());
    }
    let MadeTree { digest, manifest, encoded } = made;
    let missing = remote.missing(vec![digest]).await.map_err(TransferError::from)?;
    if !missing.is_empty() {
        let encoded = std::io::Cursor::new(encoded);
        sent.bytes += send_bytes(&**remote, digest, encoded).await.map_err(TransferError::from)?;
        (sent.blobs, sent.of_blobs) = (sent.blobs + 1, sent.of_blobs + 1);
        watch(sent);
    }
    Ok(Saved { digest, manifest, sent })
}

async fn send_offered(remote: &dyn RemoteBlobs, OfferedBlob { digest, source }: OfferedBlob) -> Result<u64, ApiError> {
    let opened = blocking(move || source.open_blob(digest)).await?.map_err(unreadable)?;
    let gone = || ApiError::new(ErrorCode::Conflict, format!("blob {digest} was offered and is not there"));
    send_bytes(remote, digest, opened.ok_or_else(gone)?).await
}

async fn finish_one(
    going: &mut JoinSet<(Digest, Result<u64, ApiError>)>,
    sent: &mut Progress,
    failed: &mut HashMap<Digest, ApiError>,
) -> Result<(), TransferError> {
    let Some(ended) = going.join_next().await else { return Ok(()) };
    match ended.map_err(broken)? {
        (_, Ok(bytes)) => {
            sent.blobs += 1;
            sent.bytes += bytes;
        }
        (digest, Err(error)) => {
            failed.insert(digest, error);
        }
    }
    Ok(())
}
