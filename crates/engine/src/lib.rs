//! How one leased job runs: sandbox, steps, limits, output, result.
//!
//! - [`Engine`]: takes a lease, gives back how its attempt ended;
//! - [`environment`]: what each step's environment is;
//! - [`verdict`]: what an end means: outcome, exit code, words for people;
//! - [`output`]: what becomes of what the steps write;
//! - [`binary_cache`]: programs fetched by URL;
//! - `masking`: secret values, kept out of all that leaves the worker;
//! - `providers`: variables that are not written in the file;
//! - [`Consoles`]: commands that people run in sandboxes, beside their steps;
//! - `workspaces`: places that are set up once for many jobs;
//! - [`KeptDirectories`]: what stays of jobs for somebody to look at;
//! - `trees`: repositories and artifacts on this worker;
//! - [`host`]: what the engine is told of the machine; it looks up nothing by itself;
//! - [`stop`]: how an attempt is told to end.
//!
//! Where steps run is an executor's business, and how their processes are made and ended an agent's. Leases, slots and
//! results on their way are the worker's.

mod attempt;
pub mod binary_cache;
mod consoles;
mod environment;
mod host;
mod kept;
mod masking;
pub mod output;
mod providers;
mod stop;
mod trees;
mod verdict;
mod workspaces;

pub use attempt::{Engine, FinishedAttempt};
pub use consoles::Consoles;
pub use host::{ContainerRules, Containers, DEFAULT_PATH, HostContext, Hosts, Inherit, Policy};
pub use kept::{KeptDirectories, KeptDirectory, KeptNote};
pub use providers::{Providers, variables_in};
pub use stop::{Stop, StopReason, Stopper};
pub use trees::{TreeOptions, Trees};
pub use workspaces::Workspaces;
