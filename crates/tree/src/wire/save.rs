//! Making a tree and sending it at the same time.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use executr_api::ApiError;
use executr_spec::Digest;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::push::{broken, send_bytes};
use super::{Progress, RemoteBlobs, TOGETHER, TransferError, Watch};
use crate::manifest::Manifest;
use crate::snapshot::{LooseBlob, SnapshotOptions, snapshot_telling};

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
    let (tell, mut told) = mpsc::unbounded_channel::<LooseBlob>();
    let making = tokio::task::spawn_blocking(move || {
        // Nobody listens any more after an error.
        snapshot_telling(&path, &options, &|blob| drop(tell.send(blob)))
    });
    let mut sent = Progress::default();
    let mut failed: HashMap<Digest, ApiError> = HashMap::new();
    let mut seen = HashSet::new();
    let mut going: JoinSet<(Digest, Result<u64, ApiError>)> = JoinSet::new();
    let mut batch = Vec::new();
    while told.recv_many(&mut batch, ASKED).await > 0 {
        let mut new: HashMap<Digest, LooseBlob> = batch.drain(..).map(|blob| (blob.digest(), blob)).collect();
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
            going.spawn(async move { (digest, send_bytes(&*remote, digest, blob.open()).await) });
        }
    }
    while !going.is_empty() {
        finish_one(&mut going, &mut sent, &mut failed).await?;
        watch(sent);
    }
    let snapshot = making.await.map_err(broken)??;
    // What changed while the tree was made may have been told of in a form that is no part of it.
    if let Some(error) = snapshot.manifest().blobs().iter().find_map(|blob| failed.remove(blob)) {
        return Err(error.into());
    }
    let digest = snapshot.digest();
    if !remote.missing(vec![digest]).await?.is_empty() {
        let encoded = std::io::Cursor::new(snapshot.encoded().to_vec());
        sent.bytes += send_bytes(&**remote, digest, encoded).await?;
        (sent.blobs, sent.of_blobs) = (sent.blobs + 1, sent.of_blobs + 1);
        watch(sent);
    }
    Ok(Saved { digest, manifest: snapshot.manifest().clone(), sent })
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
