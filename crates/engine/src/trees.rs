//! Trees on this worker: fetched once for all jobs that need them, and brought to the coordinator as jobs make them.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use executr_api::{ErrorCode, RetryDelay};
use executr_executors::contract::{ExecutorError, Sandbox, TakeFrom, TreeAtHand};
use executr_spec::{Digest, Hasher};
use executr_tree::wire::{Fetched, RemoteBlobs, Saved, TransferError, fetch, save_offered};
use executr_tree::{BlobDir, BlobSource, Entry, FileEntry, Kind, MadeTree, Manifest, OfferedBlob, Place, SMALL};
use thiserror::Error;
use tokio::sync::mpsc;
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
    /// The job's place doesn't give it.
    #[error(transparent)]
    Place(#[from] ExecutorError),
    /// There is no file for what is to be kept for a moment.
    #[error("a temporary file can't be written: {0}; check that there is space left for the worker's cache")]
    File(#[source] io::Error),
    /// There is nothing to make it of.
    #[error("nothing is there")]
    Nothing,
}

impl TreeError {
    /// Whether the same may work later.
    fn is_transient(&self) -> bool {
        matches!(self, Self::Transfer(TransferError::Api(error)) if error.code.is_transient())
    }

    /// Whether the job has no place any more.
    pub(crate) fn is_of_a_lost_place(&self) -> bool {
        matches!(self, Self::Place(error) if error.is_of_a_lost_place())
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

/// A file of no name as the one blob of a tree.
struct FileBlob(Arc<File>);

impl BlobSource for FileBlob {
    fn open_blob(&self, _digest: Digest) -> io::Result<Option<Box<dyn Read + Send>>> {
        Ok(Some(Box::new(FromStart { file: Arc::clone(&self.0), at: 0 })))
    }
}

/// Reads a file, wherever others are in it.
struct FromStart {
    file: Arc<File>,
    at: u64,
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// A tree that holds one file.
fn tree_of(file: &Arc<File>, name: String) -> io::Result<MadeTree> {
    let (mut hasher, mut buffer) = (Hasher::default(), vec![0; 256 << 10]);
    let mut reading = FromStart { file: Arc::clone(file), at: 0 };
    loop {
        match reading.read(&mut buffer)? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    let (digest, size) = (hasher.finish(), reading.at);
    // It is told its place by its size.
    let entry = FileEntry { mode: 0o644, size, digest, place: Place::Empty };
    let packs = if (1..SMALL).contains(&size) { vec![digest] } else { Vec::new() };
    let manifest = Manifest::new(vec![Entry { path: name.into(), kind: Kind::File(entry) }], packs);
    let manifest = manifest.map_err(io::Error::other)?;
    let encoded = manifest.encode();
    Ok(MadeTree { digest: Digest::of(&encoded), manifest, encoded })
}

/// A tree that is here while this is held.
pub(crate) struct HeldTree {
    tree: Arc<Fetched>,
    /// Of a part of it, that.
    part: Option<Manifest>,
    blobs: BlobDir,
}

impl TreeAtHand for HeldTree {
    fn manifest(&self) -> &Manifest {
        self.part.as_ref().unwrap_or(&self.tree.manifest)
    }

    fn blobs(&self) -> &BlobDir {
        &self.blobs
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

    /// A tree, for whoever puts it somewhere.
    pub(crate) fn held(&self, tree: &Arc<Fetched>) -> Result<Arc<dyn TreeAtHand>, TreeError> {
        Ok(Arc::new(HeldTree { tree: Arc::clone(tree), part: None, blobs: self.blobs()?.clone() }))
    }

    /// A part of a tree, likewise.
    pub(crate) fn held_part(&self, tree: &Arc<Fetched>, part: Manifest) -> Result<Arc<dyn TreeAtHand>, TreeError> {
        Ok(Arc::new(HeldTree { tree: Arc::clone(tree), part: Some(part), blobs: self.blobs()?.clone() }))
    }

    /// A file that is gone when nobody has it open any more.
    pub(crate) fn temporary_file(&self) -> Result<File, TreeError> {
        self.blobs()?;
        tempfile::tempfile_in(&self.options.directory).map_err(TreeError::File)
    }

    /// Brings a file to the coordinator, as a tree in which it has this name. Tries until it is told otherwise.
    pub(crate) async fn save_file(
        &self,
        remote: &Arc<dyn RemoteBlobs>,
        file: File,
        name: String,
    ) -> Result<Saved, TreeError> {
        let file = Arc::new(file);
        let hashed = Arc::clone(&file);
        let made = tokio::task::spawn_blocking(move || tree_of(&hashed, name)).await.map_err(io::Error::other);
        let made = made.flatten().map_err(TreeError::File)?;
        let mut delay = RetryDelay::default();
        loop {
            let (offer, offered) = mpsc::unbounded_channel();
            for digest in made.manifest.blobs() {
                drop(offer.send(OfferedBlob { digest, source: Arc::new(FileBlob(Arc::clone(&file))) }));
            }
            drop(offer);
            let saving = save_offered(remote, offered, async { Ok(made.clone()) }, &|_| ());
            match saving.await.map_err(|error: TransferError| TreeError::from(error)) {
                Err(error) if error.is_transient() => tokio::time::sleep(delay.next_delay()).await,
                ended => return ended,
            }
        }
    }

    /// Takes a tree out of a job and brings it to the coordinator; `None` when nothing is there. Tries until it is told
    /// otherwise.
    pub(crate) async fn save(
        &self,
        remote: &Arc<dyn RemoteBlobs>,
        sandbox: &mut dyn Sandbox,
        from: TakeFrom<'_>,
    ) -> Result<Option<Saved>, TreeError> {
        let mut delay = RetryDelay::default();
        loop {
            let (offer, offered) = mpsc::unbounded_channel();
            let taking = async { sandbox.take_tree(from, offer).await?.ok_or(TreeError::Nothing) };
            match save_offered(remote, offered, taking, &|_| ()).await {
                Ok(saved) => return Ok(Some(saved)),
                Err(TreeError::Nothing) => return Ok(None),
                Err(error) if error.is_transient() => tokio::time::sleep(delay.next_delay()).await,
                Err(error) => return Err(error),
            }
        }
    }
}
