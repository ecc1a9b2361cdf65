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
        Self { directory: directory.into(), clock: Arc::new(SystemClock), synced: true, sync_delay: Duration::ZERO }
    }
}
