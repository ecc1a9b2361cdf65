//! What others may watch of the cache.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use executr_api::WorkerCounters;
use executr_spec::Digest;

/// What happens to a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheEvent<'a> {
    /// It begins, or begins anew.
    Started {
        /// What is fetched.
        digest: Digest,
        /// From where, without secrets.
        url: &'a str,
    },
    /// More of it is there.
    Progress {
        /// What is fetched.
        digest: Digest,
        /// Bytes that are there.
        bytes: u64,
        /// Bytes there will be, if the source says.
        total: Option<u64>,
    },
    /// It is there and verified.
    Finished {
        /// What was fetched.
        digest: Digest,
        /// Its size in bytes.
        bytes: u64,
        /// How long it took.
        took: Duration,
    },
}

/// Is told of downloads; must return at once.
pub type CacheObserver = Arc<dyn Fn(&CacheEvent<'_>) + Send + Sync>;

#[derive(Debug, Default)]
pub(super) struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    bytes: AtomicU64,
    downloads: AtomicU64,
    download_micros: AtomicU64,
}

impl Counters {
    pub(super) fn hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn miss(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn downloaded(&self, took: Duration) {
        self.downloads.fetch_add(1, Ordering::Relaxed);
        self.download_micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn holds(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn read(&self, into: &mut WorkerCounters) {
        into.cache_hits = self.hits.load(Ordering::Relaxed);
        into.cache_misses = self.misses.load(Ordering::Relaxed);
        into.cache_bytes = self.bytes.load(Ordering::Relaxed);
        into.downloads = self.downloads.load(Ordering::Relaxed);
        into.download_micros = self.download_micros.load(Ordering::Relaxed);
    }
}
