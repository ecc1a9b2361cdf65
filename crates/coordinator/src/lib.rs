//! The brain: accepts jobs, decides what is ready, leases it, takes results.
//!
//! [`Coordinator`] implements [`WorkerApi`](executr_api::WorkerApi) and, for a tenant, [`Client`](executr_api::Client) and
//! [`RunClient`](executr_api::RunClient) in its own process, over any [`Store`](executr_store::Store). What is durable is the store's; here live the things that
//! die with the process and may: who waits for what, which worker was heard of when, what is probably ready.
//!
//! What may not live here: HTTP, a database, the running of jobs.

mod bell;
mod blobs;
mod cancel;
mod client;
mod client_runs;
mod clock;
mod consoles;
mod coordinator;
mod core;
mod draw;
mod driven;
mod exchange;
mod fleet;
mod flight;
mod gather;
mod job_token;
mod lock;
mod neighbours;
mod observer;
mod options;
mod original;
mod output;
mod ready;
mod reclaiming;
mod refusal;
mod retention;
mod runs;
mod sessions;
mod silence;
mod submission;
mod sweep;
mod tokens;
mod view;
mod waiting_for;
mod watches;
mod worker_api;

pub use client::TenantClient;
pub use coordinator::{Coordinator, Gauges};
pub use executr_store::StoreCounters;
pub use observer::{Observer, Unobserved};
pub use options::Options;
pub use original::OriginalEnd;
