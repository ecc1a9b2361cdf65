//! What is measured, one idea a file. Each returns rows in which ours and the other's value come from this run.

pub mod agent;
pub mod cancel;
pub mod changes;
pub mod claims;
pub mod direct;
pub mod idle;
pub mod images;
pub mod keepers;
pub mod latency;
pub mod memory;
pub mod no_op;
pub mod output;
pub mod run;
pub mod throughput;
pub mod trees;
pub mod workflows;

use std::io;
use std::path::PathBuf;

use crate::report::Row;

/// What a run of the benchmarks was told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How often each measure is repeated; the median counts.
    pub repeats: usize,
    /// A clone of HyperQueue with a release build.
    pub hyperqueue: Option<PathBuf>,
    /// A folder whose `node_modules` holds graphile-worker.
    pub graphile_worker: Option<PathBuf>,
}

/// A measure, by the name it is asked for with.
pub type Measure = (&'static str, fn(&Settings) -> io::Result<Vec<Row>>);

/// All measures in the order they run.
pub const ALL: [Measure; 23] = [
    ("keepers", keepers::measure),
    ("agent", agent::measure),
    ("throughput", throughput::measure),
    ("no-op", no_op::embedded),
    ("no-op-postgres", no_op::postgres),
    ("latency", latency::measure),
    ("run", run::measure),
    ("cancel", cancel::measure),
    ("claims", claims::embedded),
    ("claims-postgres", claims::postgres),
    ("deletion", claims::deletion),
    ("memory", memory::measure),
    ("output", output::measure),
    ("idle", idle::measure),
    ("snapshot", trees::snapshots),
    ("job-directories", trees::job_directories),
    ("artifact", trees::artifact),
    ("changed", changes::changed),
    ("tree-into-directory", changes::into_directory),
    ("image-pull", images::pull),
    ("image-build", images::build),
    ("workflows", workflows::measure),
    ("direct", direct::measure),
];
