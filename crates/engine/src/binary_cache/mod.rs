//! Programs fetched by URL, kept by their SHA-256.
//!
//! - [`source`]: what a URL means;
//! - [`download`]: bytes from a source into the directory, resumed where one stopped;
//! - [`unchanged`]: how a file is known to be the one that was verified;
//! - [`events`]: what others may watch: progress and counters.
//!
//! The directory (`executr-tree`'s `BlobDir`) may be shared by several worker processes. A program is verified when it
//! comes and before each run; it can't be evicted while it is in use, by whatever process.

mod download;
mod events;
mod source;
mod unchanged;

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use executr_api::{ApiError, WorkerApi, WorkerCounters};
use executr_spec::{BinaryStep, Bytes, Digest, Hasher};
use executr_tree::{BlobDir, BlobDirError};
use thiserror::Error;

pub use events::{CacheEvent, CacheObserver};

use events::Counters;
use source::Source;
use unchanged::Unchanged;

/// How the cache is to behave.
#[derive(Clone)]
pub struct BinaryCacheOptions {
    /// Where programs are kept.
    pub directory: PathBuf,
    /// When they take more bytes than this, the least recently used go.
    pub max_bytes: u64,
    /// A single program may not be larger.
    pub max_binary_bytes: u64,
    /// The longest a connection may take to be made.
    pub connect_timeout: Duration,
    /// The longest a download may stand still.
    pub idle_timeout: Duration,
    /// Who is told of downloads.
    pub observer: Option<CacheObserver>,
}

impl BinaryCacheOptions {
    /// The usual bounds: 400 MB kept, 4 GiB for one program, 10 s to connect, 60 s of silence.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            max_bytes: 400_000_000,
            max_binary_bytes: 4 << 30,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            observer: None,
        }
    }
}

impl std::fmt::Debug for BinaryCacheOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BinaryCacheOptions")
            .field("directory", &self.directory)
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}

/// Why a program can't be had.
#[derive(Debug, Error)]
pub enum CacheError {
    /// The URL means nothing.
    #[error("`{url}` can't be fetched: {problem}")]
    Url {
        /// The URL, without secrets.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The source doesn't give it.
    #[error("cannot download {url}: {problem}")]
    Source {
        /// The URL, without secrets.
        url: String,
        /// What happened and what to do.
        problem: String,
    },
    /// It is something else than asked for.
    #[error("{url} has SHA-256 {found}, but the job asks for {expected}; correct the digest or the URL")]
    Mismatch {
        /// The URL, without secrets.
        url: String,
        /// What the job asks for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// It is larger than allowed.
    #[error("{url} is larger than the {} allowed for one binary", Bytes(*limit))]
    TooLarge {
        /// The URL, without secrets.
        url: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// The server doesn't give its blob.
    #[error("cannot fetch blob {digest} from the server: {source}")]
    Blob {
        /// Which.
        digest: Digest,
        /// Why.
        source: ApiError,
    },
    /// The directory doesn't do.
    #[error("binary cache: {0}")]
    Directory(#[from] BlobDirError),
    /// Another attempt at the same download failed; this one waited for it.
    #[error(transparent)]
    Shared(Arc<CacheError>),
}

impl CacheError {
    /// Whether trying again can't help: the job itself is wrong.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Url { .. } | Self::Mismatch { .. } | Self::TooLarge { .. } => true,
            Self::Shared(error) => error.is_final(),
            Self::Source { .. } | Self::Blob { .. } | Self::Directory(_) => false,
        }
    }
}

/// A program that may be run now, and stays where it is until this is dropped.
#[derive(Debug)]
pub struct CachedBinary {
    path: PathBuf,
    _held: File,
}

impl CachedBinary {
    /// The program.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What is known of a program by this process.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// The file that was verified, once it can be told from a changed one.
    verified: Option<Unchanged>,
    used: SystemTime,
    /// When others were last told of its use.
    touched: SystemTime,
}

/// One program's fetching: whoever holds it fetches, the others wait and find the program there, or the error.
type Fetching = tokio::sync::Mutex<Option<(Instant, Arc<CacheError>)>>;

/// The cache.
pub struct BinaryCache {
    options: BinaryCacheOptions,
    blobs: BlobDir,
    known: Mutex<HashMap<Digest, Known>>,
    fetching: Mutex<HashMap<Digest, Weak<Fetching>>>,
    counters: Counters,
    http: tokio::sync::OnceCell<reqwest::Client>,
}

/// How often other processes are told that a program is still in use.
const TOUCH_EVERY: Duration = Duration::from_secs(10);
/// Nobody goes on with a download that stopped so long ago.
const PARTIALS_KEPT: Duration = Duration::from_secs(24 * 3_600);
/// How often it is looked whether another process has finished a download.
const OTHER_PROCESS: Duration = Duration::from_millis(100);

impl BinaryCache {
    /// Opens the cache, making its directory when it isn't there.
    ///
    /// # Errors
    /// When the directory can't be used.
    pub fn open(options: BinaryCacheOptions) -> Result<Self, CacheError> {
        let cache = Self {
            blobs: BlobDir::open(&options.directory)?,
            options,
            known: Mutex::new(HashMap::new()),
            fetching: Mutex::new(HashMap::new()),
            counters: Counters::default(),
            http: tokio::sync::OnceCell::new(),
        };
        cache.blobs.forget_partials(PARTIALS_KEPT)?;
        cache.evict()?;
        Ok(cache)
    }

    /// Adds what the cache counts to a worker's totals.
    pub fn count(&self, counters: &mut WorkerCounters) {
        self.counters.read(counters);
    }

    /// The program of a step, fetched if need be, verified.
    ///
    /// # Errors
    /// When it can't be had, or is something else than asked for.
    pub async fn fetch(
        &self,
        binary: &BinaryStep,
        api: &Arc<dyn WorkerApi>,
        token: &str,
    ) -> Result<CachedBinary, CacheError> {
        let digest = binary.sha256;
        if let Some(cached) = self.unchanged(digest)? {
            self.counters.hit();
            return Ok(cached);
        }
        let waits_since = Instant::now();
        let fetching = self.fetching(digest);
        let mut failure = fetching.lock().await;
        if let Some((failed_at, error)) = &*failure
            && *failed_at > waits_since
        {
            return Err(CacheError::Shared(Arc::clone(error)));
        }
        if let Some(cached) = self.verify(digest).await? {
            self.counters.hit();
            return Ok(cached);
        }
        self.counters.miss();
        let source = Source::parse(&binary.url, digest)?;
        match self.bring(&source, digest, api, token).await {
            Ok(cached) => {
                *failure = None;
                Ok(cached)
            }
            Err(error) => {
                let error = Arc::new(error);
                *failure = Some((Instant::now(), Arc::clone(&error)));
                Err(CacheError::Shared(error))
            }
        }
    }

    async fn bring(
        &self,
        source: &Source,
        digest: Digest,
        api: &Arc<dyn WorkerApi>,
        token: &str,
    ) -> Result<CachedBinary, CacheError> {
        let partial = loop {
            if let Some(partial) = self.blobs.bring(digest)? {
                break partial;
            }
            // Another process is at it, or has just finished.
            tokio::time::sleep(OTHER_PROCESS).await;
            if let Some(cached) = self.verify(digest).await? {
                return Ok(cached);
            }
        };
        let started = Instant::now();
        let bytes = self.download(source, digest, partial, api, token).await?;
        self.counters.downloaded(started.elapsed());
        self.tell(CacheEvent::Finished { digest, bytes, took: started.elapsed() });
        let Some(cached) = self.verify(digest).await? else {
            let problem = "it disappeared from the cache at once; is another program clearing its directory?";
            return Err(CacheError::Source { url: source.to_string(), problem: problem.to_owned() });
        };
        self.evict()?;
        Ok(cached)
    }

    /// The program if it is the very file that was verified.
    fn unchanged(&self, digest: Digest) -> Result<Option<CachedBinary>, CacheError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = known.get_mut(&digest) else { return Ok(None) };
        let Some(verified) = entry.verified else { return Ok(None) };
        let Some(held) = self.blobs.hold(digest)? else { return Ok(None) };
        if Unchanged::of(&held).ok() != Some(verified) {
            return Ok(None);
        }
        self.use_now(digest, entry);
        Ok(Some(CachedBinary { path: self.blobs.path(digest), _held: held }))
    }

    /// The program if it is there, after reading it all. A changed one is removed.
    async fn verify(&self, digest: Digest) -> Result<Option<CachedBinary>, CacheError> {
        let Some(held) = self.blobs.hold(digest)? else { return Ok(None) };
        let path = self.blobs.path(digest);
        let io = |source| BlobDirError::Io { action: "read", path: path.clone(), source };
        let before = Unchanged::of(&held).map_err(io)?;
        let now = SystemTime::now();
        let hashing = tokio::task::spawn_blocking(move || hash(&held).map(|found| (held, found)));
        let hashed = hashing.await.unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
        let (held, found) = hashed.map_err(io)?;
        let after = Unchanged::of(&held).map_err(io)?;
        if found != digest || before != after {
            tracing::warn!(binary = %path.display(), %found, "a cached binary was changed; it is fetched again");
            self.blobs.discard(digest)?;
            return Ok(None);
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = known.entry(digest).or_insert(Known { verified: None, used: now, touched: SystemTime::UNIX_EPOCH });
        entry.verified = before.is_tellable_at(now).then_some(before);
        self.use_now(digest, entry);
        drop(known);
        Ok(Some(CachedBinary { path, _held: held }))
    }

    fn use_now(&self, digest: Digest, entry: &mut Known) {
        let now = SystemTime::now();
        entry.used = now;
        if now.duration_since(entry.touched).is_ok_and(|since| since < TOUCH_EVERY) {
            return;
        }
        entry.touched = now;
        if let Err(error) = self.blobs.touch(digest, now) {
            tracing::warn!(%error, "the use of a binary can't be noted; others may evict it too early");
        }
    }

    fn fetching(&self, digest: Digest) -> Arc<Fetching> {
        let mut all = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fetching) = all.get(&digest).and_then(Weak::upgrade) {
            return fetching;
        }
        all.retain(|_, fetching| fetching.strong_count() > 0);
        let fetching = Arc::new(Fetching::default());
        all.insert(digest, Arc::downgrade(&fetching));
        fetching
    }

    /// Removes the least recently used programs until the rest fits, none in use.
    fn evict(&self) -> Result<(), CacheError> {
        let mut entries = self.blobs.entries()?;
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            for entry in &mut entries {
                entry.used = entry.used.max(known.get(&entry.digest).map_or(entry.used, |known| known.used));
            }
        }
        entries.sort_by_key(|entry| entry.used);
        let mut total: u64 = entries.iter().map(|entry| entry.size).sum();
        for entry in entries {
            if total <= self.options.max_bytes {
                break;
            }
            if self.blobs.evict(entry.digest)? {
                tracing::debug!(digest = %entry.digest, "evicted from the binary cache");
                total -= entry.size;
                self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&entry.digest);
            }
        }
        self.counters.holds(total);
        Ok(())
    }

    fn tell(&self, event: CacheEvent<'_>) {
        if let Some(observer) = &self.options.observer {
            observer(&event);
        }
    }
}

fn hash(mut file: &File) -> std::io::Result<Digest> {
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
