//! What the server counts, as Prometheus text.
//!
//! [`Metrics`] hears of events as the coordinator's [`Observer`](executr_coordinator::Observer) (`observer`) and of
//! requests from the gate; what is only true at a moment is asked for when the text is written.

mod observer;
mod summary;

use std::time::Duration;

use executr_api::RunState;
use executr_coordinator::Gauges;
use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use self::summary::Summary;

/// Seconds that jobs and runs take or wait: up to a day.
const JOB_SECONDS: [f64; 14] =
    [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0];
/// Seconds that requests take: exchanges are held for some.
const REQUEST_SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// All metrics of one server, in a registry of their own.
pub struct Metrics {
    registry: Registry,
    submitted: IntCounter,
    completed: IntCounter,
    failed: IntCounter,
    cancelled: IntCounter,
    job_duration: Histogram,
    wait_time: Histogram,
    run_duration: HistogramVec,
    in_queue: IntGauge,
    runs: IntGaugeVec,
    executors: IntGauge,
    heartbeats: IntCounter,
    claimed: IntCounter,
    cache_hits: IntCounter,
    cache_misses: IntCounter,
    cache_bytes: IntGauge,
    downloads: Summary,
    queries: IntCounterVec,
    query_duration: Summary,
    connections: IntGauge,
    requests: IntCounterVec,
    request_duration: HistogramVec,
    recovered: IntCounter,
    cleaned: IntCounter,
}

impl Metrics {
    /// All of them at zero.
    #[must_use]
    pub fn new() -> Self {
        let maker = Maker(Registry::new());
        Self {
            submitted: maker.counter("executr_jobs_submitted_total", "Jobs submitted."),
            completed: maker.counter("executr_jobs_completed_total", "Jobs that ended well."),
            failed: maker.counter("executr_jobs_failed_total", "Jobs that ended badly."),
            cancelled: maker.counter("executr_jobs_cancelled_total", "Jobs that ended by request."),
            job_duration: maker.histogram("executr_job_duration_seconds", "How long the last attempts of jobs ran."),
            wait_time: maker
                .histogram("executr_job_wait_time_seconds", "How long jobs waited before they were handed out first."),
            run_duration: maker.runs("executr_run_duration_seconds", "How long runs took, by the state they ended in."),
            in_queue: maker.gauge("executr_jobs_in_queue", "Jobs that wait."),
            runs: maker
                .family(IntGaugeVec::new(Opts::new("executr_runs", "Runs that are kept, by their state."), &["state"])),
            executors: maker.gauge("executr_executors_active", "Executors heard of lately."),
            heartbeats: maker.counter("executr_executor_heartbeats_total", "Times that an executor was heard of."),
            claimed: maker.counter("executr_executor_jobs_claimed_total", "Jobs handed out to executors."),
            cache_hits: maker
                .counter("executr_binary_cache_hits_total", "Binaries that executors found in their cache."),
            cache_misses: maker
                .counter("executr_binary_cache_misses_total", "Binaries that executors had to download."),
            cache_bytes: maker.gauge("executr_binary_cache_size_bytes", "Bytes in the caches of connected executors."),
            downloads: maker
                .summary("executr_binary_download_duration_seconds", "How long executors took to download binaries."),
            queries: maker.family(IntCounterVec::new(
                Opts::new("executr_database_queries_total", "Commands to the database, by their result."),
                &["result"],
            )),
            query_duration: maker
                .summary("executr_database_query_duration_seconds", "How long commands to the database took."),
            connections: maker.gauge("executr_database_connections", "Connections open to the database."),
            requests: maker.family(IntCounterVec::new(
                Opts::new("executr_api_requests_total", "Requests answered."),
                &["method", "route", "status"],
            )),
            request_duration: maker.family(HistogramVec::new(
                HistogramOpts::new(
                    "executr_api_request_duration_seconds",
                    "How long requests took until their answer began.",
                )
                .buckets(REQUEST_SECONDS.to_vec()),
                &["method", "route"],
            )),
            recovered: maker.counter(
                "executr_stale_jobs_recovered_total",
                "Leases lost: their executors weren't heard of in time.",
            ),
            cleaned: maker.counter("executr_old_jobs_cleaned_total", "Jobs deleted because they were old."),
            registry: maker.0,
        }
    }

    /// Counts a request.
    pub(crate) fn request(&self, method: &str, route: &str, status: u16, duration: Duration) {
        let mut digits = [0_u8; 3];
        let status = status_label(status, &mut digits);
        self.requests.with_label_values(&[method, route, status]).inc();
        self.request_duration.with_label_values(&[method, route]).observe(duration.as_secs_f64());
    }

    /// The text, with what is true just now.
    pub(crate) fn text(&self, now: &Gauges) -> String {
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.in_queue.set(signed(now.jobs_in_queue));
        for state in RunState::ALL {
            let runs = now.runs.get(&state).copied().unwrap_or_default();
            self.runs.with_label_values(&[state.as_str()]).set(signed(runs));
        }
        self.executors.set(signed(now.active_executors));
        self.cache_bytes.set(signed(now.cache_bytes));
        self.connections.set(signed(now.store.connections));
        self.query_duration.set(now.store.queries, Duration::from_micros(now.store.query_micros));
        for (result, total) in [("ok", now.store.queries.saturating_sub(now.store.errors)), ("error", now.store.errors)]
        {
            let counter = self.queries.with_label_values(&[result]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
        let mut text = Vec::new();
        // Writing to memory fails only for metrics without a name.
        if let Err(error) = prometheus::TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "the metrics can't be written");
        }
        String::from_utf8(text).unwrap_or_default()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Three digits without an allocation.
fn status_label(status: u16, digits: &mut [u8; 3]) -> &str {
    for (place, digit) in [100, 10, 1].into_iter().zip(digits.iter_mut()) {
        // A status has three digits, so each part is below 10.
        *digit = b'0' + (status / place % 10) as u8;
    }
    std::str::from_utf8(digits).unwrap_or("000")
}

/// Makes metrics and registers them. Names and labels are constants of this file; a test makes them all.
struct Maker(Registry);

impl Maker {
    fn family<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let metric = made.expect("the names in this file are valid");
        self.0.register(Box::new(metric.clone())).expect("the names in this file differ");
        metric
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.family(IntCounter::new(name, help))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.family(IntGauge::new(name, help))
    }

    fn histogram(&self, name: &str, help: &str) -> Histogram {
        self.family(Histogram::with_opts(HistogramOpts::new(name, help).buckets(JOB_SECONDS.to_vec())))
    }

    /// A histogram for each state in which a run may end, all there from the start.
    fn runs(&self, name: &str, help: &str) -> HistogramVec {
        let made = HistogramVec::new(HistogramOpts::new(name, help).buckets(JOB_SECONDS.to_vec()), &["state"]);
        let family = self.family(made);
        for state in RunState::ALL.into_iter().filter(|state| state.is_final()) {
            family.with_label_values(&[state.as_str()]);
        }
        family
    }

    fn summary(&self, name: &str, help: &str) -> Summary {
        self.family(Summary::new(name, help))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_metric_is_made_and_written_from_the_start() {
        let metrics = Metrics::new();
        metrics.request("GET", "/api/v1/health", 200, Duration::from_millis(3));
        let runs = BTreeMap::from([(RunState::Running, 2)]);
        let gauges = Gauges { jobs_in_queue: 7, runs, ..Gauges::default() };
        let text = metrics.text(&gauges);
        for line in [
            "executr_jobs_in_queue 7",
            "executr_jobs_submitted_total 0",
            r#"executr_runs{state="running"} 2"#,
            r#"executr_runs{state="failed"} 0"#,
            r#"executr_run_duration_seconds_count{state="cancelled"} 0"#,
            r#"executr_api_requests_total{method="GET",route="/api/v1/health",status="200"} 1"#,
            r#"executr_database_queries_total{result="ok"} 0"#,
            "executr_binary_download_duration_seconds_count 0",
            "executr_database_query_duration_seconds_sum 0",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is missing in:\n{text}");
        }
    }
}
