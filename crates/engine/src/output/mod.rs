//! What becomes of a job's output on its way from the keeper to the coordinator.
//!
//! - [`log`]: what was written and not yet taken by the coordinator, within the cap: memory first, then disk;
//! - [`spool`]: the disk part: a file without a name, so that nothing has to be cleaned up;
//! - [`feed`]: appends to the coordinator while the job runs, and decides what travels with the result;
//! - [`tail`]: what couldn't be appended before the job ended, to be kept on disk and appended later.
//!
//! Memory is bounded whatever the job writes and however slow the coordinator is, and the job never waits for either.

mod feed;
mod log;
mod spool;
mod tail;

use std::path::PathBuf;
use std::time::Duration;

pub use feed::{FinishedOutput, OutputFeed};
pub use tail::Tail;

/// Bounds on output.
#[derive(Clone, Debug)]
pub struct OutputOptions {
    /// The most bytes kept of one attempt's output: the first three quarters, and the last quarter.
    pub cap: u64,
    /// Up to so many bytes travel with the result instead of being appended before it.
    pub inline: usize,
    /// The longest a byte waits for others to travel with.
    pub gather: Duration,
    /// Where spool files are made.
    pub spool_dir: PathBuf,
}

impl OutputOptions {
    /// The usual bounds: 256 MiB kept, 32 KiB with the result, 100 ms to gather.
    #[must_use]
    pub fn new(spool_dir: PathBuf) -> Self {
        Self { cap: 256 << 20, inline: 32 << 10, gather: Duration::from_millis(100), spool_dir }
    }
}
