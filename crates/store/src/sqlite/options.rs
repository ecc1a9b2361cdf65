//! Where and how the embedded store is opened.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::{Clock, SystemClock};

/// Settings of the embedded store.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// Holds the database, output and blobs; made when it isn't there.
    pub directory: PathBuf,
    /// A directory on the same file system in which whole blobs stand under their digests, for several stores of one user
    /// and others. What it has is taken over by a second name (a hard link), and what comes gets a name there: the bytes are
    /// there once, and go with their last name, so nobody who removes a blob takes it from another. `None`: each blob is
    /// this store's alone.
    pub shared_blobs: Option<PathBuf>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Whether what is answered is on the disk. Off, a loss of power may take all of it: for a store that ends with its
    /// process anyway.
    pub synced: bool,
    /// Makes each commit take this much longer: to measure what slow disks do. Zero in earnest.
    pub sync_delay: Duration,
}

impl SqliteOptions {
    /// The usual settings.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            shared_blobs: None,
            clock: Arc::new(SystemClock),
            synced: true,
            sync_delay: Duration::ZERO,
        }
    }
}
