//! What an operator may set.

use std::time::Duration;

use executr_api::Version;

/// Settings of a [`Coordinator`](crate::Coordinator).
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a lease lasts without renewal (`--heartbeat-timeout`).
    pub lease: Duration,
    /// The longest an exchange is held open; a third of the lease when `None`.
    pub max_hold: Option<Duration>,
    /// The most bytes of a job's `stdout` and `stderr` fields, each.
    pub max_output_size: u64,
    /// How long final jobs and runs are kept.
    pub retention: Duration,
    /// How long the artifacts of runs are kept.
    pub artifact_retention: Duration,
    /// How often those past it are deleted.
    pub cleanup_interval: Duration,
    /// How long a blob that no job names is kept after it was last asked for.
    pub blob_keep: Duration,
    /// The most bytes of one blob.
    pub max_blob_bytes: u64,
    /// The most jobs of one bulk submission or cancellation.
    pub max_bulk: usize,
    /// The version that workers are compared with.
    pub version: Version,
    /// Where the draws of queues start; `None` takes a random place.
    pub seed: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            max_hold: None,
            max_output_size: 1 << 20,
            retention: Duration::from_secs(48 * 3_600),
            artifact_retention: Duration::from_secs(30 * 24 * 3_600),
            cleanup_interval: Duration::from_secs(3_600),
            blob_keep: Duration::from_secs(24 * 3_600),
            max_blob_bytes: 4 << 30,
            max_bulk: 10_000,
            version: Version::current(),
            seed: None,
        }
    }
}

impl Options {
    /// The longest an exchange is held open.
    #[must_use]
    pub fn max_hold(&self) -> Duration {
        self.max_hold.unwrap_or(self.lease / 3)
    }
}
