//! What the coordinator tells, counted.

use std::time::Duration;

use executr_api::{RunState, WorkerCounters};
use executr_coordinator::Observer;

use super::Metrics;

impl Observer for Metrics {
    fn submitted(&self, jobs: u64) {
        self.submitted.inc_by(jobs);
    }

    fn completed(&self, duration: Duration) {
        self.completed.inc();
        self.job_duration.observe(duration.as_secs_f64());
    }

    fn failed(&self, duration: Option<Duration>) {
        self.failed.inc();
        if let Some(duration) = duration {
            self.job_duration.observe(duration.as_secs_f64());
        }
    }

    fn cancelled(&self, jobs: u64) {
        self.cancelled.inc_by(jobs);
    }

    fn run_ended(&self, state: RunState, duration: Duration) {
        self.run_duration.with_label_values(&[state.as_str()]).observe(duration.as_secs_f64());
    }

    fn waited(&self, duration: Duration) {
        self.wait_time.observe(duration.as_secs_f64());
    }

    fn heartbeat(&self) {
        self.heartbeats.inc();
    }

    fn claimed(&self, leases: u64) {
        self.claimed.inc_by(leases);
    }

    fn lease_lost(&self, leases: u64) {
        self.recovered.inc_by(leases);
    }

    fn cleaned(&self, jobs: u64) {
        self.cleaned.inc_by(jobs);
    }

    fn worker_counted(&self, more: &WorkerCounters) {
        self.cache_hits.inc_by(more.cache_hits);
        self.cache_misses.inc_by(more.cache_misses);
        self.downloads.add(more.downloads, Duration::from_micros(more.download_micros));
    }
}
