//! Takes leases through the worker API, near or far, and runs them with the engine.
//!
//! - [`Worker`]: a worker process's inside: set up, run, drained;
//! - `dispatcher`: the one task that owns all state: slots, leases, results on their way, exchanges;
//! - `slot`: runs one attempt after another and tells the dispatcher of each end;
//! - `outbox`: results until the coordinator has them, on disk when it is away;
//! - [`Shutdown`]: how a worker is told to stop.
//!
//! How a job runs is the engine's; which job comes next, and whether a result counts, the coordinator's.

mod dispatcher;
mod options;
mod outbox;
mod shutdown;
mod slot;
mod worker;

pub use executr_engine::binary_cache::{BinaryCacheOptions, CacheEvent, CacheObserver};
pub use executr_engine::output::OutputOptions;
pub use executr_engine::{
    ContainerRules, Containers, HostContext, Hosts, Inherit, KeptDirectories, KeptDirectory, KeptNote, Policy,
    TreeOptions, variables_in,
};
pub use executr_executors::local::{Cgroups, KeeperOptions};
pub use executr_executors::oci::{AgentProgram, OciHostOptions};
pub use options::WorkerOptions;
pub use shutdown::{Shutdown, ShutdownHandle};
pub use worker::{Worker, WorkerError, WorkerSummary};
