//! Trees on this worker: fetched once for all jobs that need them, put into job directories, made of what jobs leave.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use executr_api::{ErrorCode, RetryDelay};
use executr_spec::Digest;
use executr_tree::wire::{Fetched, RemoteBlobs, Saved, TransferError, fetch, save};
use executr_tree::{BlobDir, Existing, Manifest, MaterialiseError, Placed, SnapshotOptions, materialise_unless};
use thiserror::Error;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// So many trees are kept ready, beyond those that are being used.
const READY: usize = 8;
/// After so long without being used a tree is no longer kept ready; its blobs stay until others need the room.
const KEPT: Duration = Duration::from_secs(600);

/// Where trees' blobs are kept, and how many.
#[derive(Clone, Debug)]
pub struct TreeOptions {
    /// The directory; several workers may share it.
    pub directory: PathBuf,
    /// The most bytes kept of what no job needs now; `None` when somebody else looks after the directory.
    pub max_bytes: Option<u64>,
}

/// The trees of one worker.
#[derive(Debug)]
pub struct Trees {
    options: TreeOptions,
    /// Opened with the first tree: most workers that run one job see none.
    blobs: OnceLock<BlobDir>,
    /// The last used come last.
    ready: Mutex<VecDeque<Ready>>,
    /// Others may have filled the directory before the first tree.
    trimmed: AtomicBool,
}

#[derive(Debug)]
struct Ready {
    digest: Digest,
    tree: Arc<Fetched>,
    used: Instant,
}

/// Why a tree can't be had or kept.
#[derive(Debug, Error)]
pub(crate) enum TreeError {
    /// It can't be brought or sent.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// It can't be put where it should be.
    #[error(transparent)]
    Materialise(#[from] MaterialiseError),
    /// The worker itself failed.
    #[error("a thread of the worker broke off; this is a fault of executr")]
    Broken,
}

impl TreeError {
    /// Whether the same may work later.
    fn is_transient(&self) -> bool {
        matches!(self, Self::Transfer(TransferError::Api(error)) if error.code.is_transient())
    }

    /// Whether another attempt may end better.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Transfer(TransferError::Api(error)) => error.code == ErrorCode::NotFound,
            Self::Transfer(TransferError::Manifest { .. }) => true,
            _ => false,
        }
    }
}

/// A tree that is being put into a directory. Dropped, it stops soon.
#[derive(Debug)]
pub(crate) struct Placing {
    stopped: Arc<AtomicBool>,
    writing: JoinHandle<Result<Placed, MaterialiseError>>,
}

impl Placing {
    /// Waits until the tree is there. Can be given up and called again.
    pub(crate) async fn done(&mut self) -> Result<(), TreeError> {
        (&mut self.writing).await.map_err(|_| TreeError::Broken)?.map(drop).map_err(TreeError::from)
    }

    /// Stops it; nothing is written any more then. Not to be called after [`Placing::done`] has answered.
    pub(crate) async fn stop(mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Whether it was over by then makes no difference.
        let _ = (&mut self.writing).await;
    }
}

impl Drop for Placing {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

impl Trees {
    /// No trees yet. Touches nothing.
    #[must_use]
    pub fn new(options: TreeOptions) -> Self {
        Self { options, blobs: OnceLock::new(), ready: Mutex::default(), trimmed: AtomicBool::default() }
    }

    pub(crate) fn blobs(&self) -> Result<&BlobDir, TreeError> {
        if let Some(blobs) = self.blobs.get() {
            return Ok(blobs);
        }
        let opened = BlobDir::open(&self.options.directory).map_err(TransferError::from)?;
        Ok(self.blobs.get_or_init(|| opened))
    }

    /// A tree whose blobs are all here while this is held. Tries until it is told otherwise: dropped, or answered for good.
    pub(crate) async fn fetch(&self, remote: &Arc<dyn RemoteBlobs>, digest: Digest) -> Result<Arc<Fetched>, TreeError> {
        if let Some(tree) = self.ready(digest) {
            return Ok(tree);
        }
        let blobs = self.blobs()?;
        let mut delay = RetryDelay::default();
        let tree = loop {
            match fetch(remote, blobs, digest, &|_| ()).await.map_err(TreeError::from) {
                Ok(tree) => break Arc::new(tree),
                Err(error) if error.is_transient() => tokio::time::sleep(delay.next_delay()).await,
                Err(error) => return Err(error),
            }
        };
        let brought = tree.brought.bytes;
        {
            let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
            ready.push_back(Ready { digest, tree: Arc::clone(&tree), used: Instant::now() });
            while ready.len() > READY {
                ready.pop_front();
            }
        }
        let is_first = !self.trimmed.swap(true, Ordering::Relaxed);
        if let Some(most) = self.options.max_bytes.filter(|_| is_first || brought > 0) {
            let blobs = blobs.clone();
            // Nobody has to wait for it.
            tokio::task::spawn_blocking(move || {
                if let Err(error) = blobs.trim(most) {
                    tracing::warn!(%error, "the cache of trees grows: it can't be trimmed");
                }
            });
        }
        Ok(tree)
    }

    fn ready(&self, digest: Digest) -> Option<Arc<Fetched>> {
        let now = Instant::now();
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.retain(|tree| now.duration_since(tree.used) < KEPT);
        let at = ready.iter().position(|tree| tree.digest == digest)?;
        let mut found = ready.remove(at)?;
        found.used = now;
        let tree = Arc::clone(&found.tree);
        ready.push_back(found);
        Some(tree)
    }

    /// Begins to put a tree into a directory, which is made when it isn't there. What stands in its way is replaced.
    pub(crate) fn place(&self, tree: &Arc<Fetched>, target: &Path) -> Result<Placing, TreeError> {
        let (blobs, tree, target) = (self.blobs()?.clone(), Arc::clone(tree), target.to_owned());
        let stopped = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stopped);
        let writing = tokio::task::spawn_blocking(move || {
            materialise_unless(&told, &tree.manifest, &blobs, &target, Existing::Replace)
        });
        Ok(Placing { stopped, writing })
    }

    /// Makes a tree of what stands at `path` and brings it to the coordinator. Tries until it is told otherwise.
    pub(crate) async fn save(
        &self,
        remote: &Arc<dyn RemoteBlobs>,
        path: &Path,
        options: &SnapshotOptions,
    ) -> Result<Saved, TreeError> {
        let mut delay = RetryDelay::default();
        loop {
            match save(remote, path.to_owned(), options.clone(), &|_| ()).await.map_err(TreeError::from) {
                Err(error) if error.is_transient() => tokio::time::sleep(delay.next_delay()).await,
                ended => return ended,
            }
        }
    }
}

/// What a directory looks like now; `seen` is a file that remembers what was read, so that the next look is quick.
pub(crate) async fn look(directory: &Path, seen: &Path) -> Result<Manifest, String> {
    let options = SnapshotOptions { stat_cache: Some(seen.to_owned()), ..SnapshotOptions::everything() };
    let directory = directory.to_owned();
    let looked = tokio::task::spawn_blocking(move || executr_tree::snapshot(&directory, &options));
    let snapshot = looked.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    Ok(snapshot.manifest().clone())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn nothing_is_written_any_more_once_it_is_stopped() {
        let stopped = Arc::new(AtomicBool::new(false));
        let (told, ended) = (Arc::clone(&stopped), Arc::new(AtomicBool::new(false)));
        let end = Arc::clone(&ended);
        // As a tree that is large enough never to be there in time.
        let writing = tokio::task::spawn_blocking(move || {
            while !told.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            end.store(true, Ordering::Relaxed);
            Err(MaterialiseError::Stopped)
        });
        let mut placing = Placing { stopped, writing };
        assert!(placing.done().now_or_never().is_none());
        placing.stop().await;
        assert!(ended.load(Ordering::Relaxed));
    }
}
