//! What happens, told to whoever counts.

use std::time::Duration;

use executr_api::{RunState, WorkerCounters};

/// Hears of every event that a metric is made of. Called on hot paths: implementations add to counters, no more.
pub trait Observer: Send + Sync + 'static {
    /// So many jobs were recorded.
    fn submitted(&self, _jobs: u64) {}
    /// A job ended well; its last attempt took so long.
    fn completed(&self, _duration: Duration) {}
    /// A job ended badly; its last attempt took so long, if it was reported.
    fn failed(&self, _duration: Option<Duration>) {}
    /// So many jobs ended by request.
    fn cancelled(&self, _jobs: u64) {}
    /// A run ended, so long after it was submitted.
    fn run_ended(&self, _state: RunState, _duration: Duration) {}
    /// A job was handed out for the first time, so long after it was submitted.
    fn waited(&self, _duration: Duration) {}
    /// A worker was heard of.
    fn heartbeat(&self) {}
    /// So many leases were handed out.
    fn claimed(&self, _leases: u64) {}
    /// So many leases were lost: their workers were not heard of for too long.
    fn lease_lost(&self, _leases: u64) {}
    /// So many old jobs were deleted.
    fn cleaned(&self, _jobs: u64) {}
    /// What workers count themselves grew by so much. (`cache_bytes` is left 0: it is no total; see
    /// [`Gauges`](crate::Gauges).)
    fn worker_counted(&self, _more: &WorkerCounters) {}
}

/// Counts nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {}
