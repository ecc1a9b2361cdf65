//! What an observer hears.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use executr_api::{Client, Outcome, RunCancel, RunClient, RunState, WorkerApi, WorkerCounters};
use executr_coordinator::{Coordinator, Observer, Options};

use crate::support::{LEASE, Plan, Worker, client, options, plain, store, submit_plain};

/// Adds up what it hears; spans in milliseconds.
#[derive(Default)]
struct Sums(Mutex<BTreeMap<&'static str, u64>>);

impl Sums {
    fn add(&self, what: &'static str, count: u64) {
        *self.0.lock().unwrap().entry(what).or_default() += count;
    }

    fn of(&self, what: &str) -> u64 {
        self.0.lock().unwrap().get(what).copied().unwrap_or_default()
    }
}

impl Observer for Sums {
    fn submitted(&self, jobs: u64) {
        self.add("submitted", jobs);
    }
    fn completed(&self, duration: Duration) {
        self.add("completed", 1);
        self.add("duration", duration.as_millis() as u64);
    }
    fn failed(&self, _duration: Option<Duration>) {
        self.add("failed", 1);
    }
    fn cancelled(&self, jobs: u64) {
        self.add("cancelled", jobs);
    }
    fn run_ended(&self, state: RunState, duration: Duration) {
        self.add(state.as_str(), 1);
        self.add("run_duration", duration.as_millis() as u64);
    }
    fn waited(&self, duration: Duration) {
        self.add("waited", duration.as_millis() as u64);
    }
    fn heartbeat(&self) {
        self.add("heartbeat", 1);
    }
    fn claimed(&self, leases: u64) {
        self.add("claimed", leases);
    }
    fn lease_lost(&self, leases: u64) {
        self.add("lease_lost", leases);
    }
    fn cleaned(&self, jobs: u64) {
        self.add("cleaned", jobs);
    }
    fn worker_counted(&self, more: &WorkerCounters) {
        self.add("cache_hits", more.cache_hits);
        self.add("cache_misses", more.cache_misses);
        self.add("downloads", more.downloads);
        self.add("download_micros", more.download_micros);
    }
}

#[tokio::test(start_paused = true)]
async fn every_event_is_counted_once() {
    let sums = Arc::new(Sums::default());
    let options = Options { retention: Duration::from_secs(3_600), cleanup_interval: LEASE, ..options() };
    let coordinator = Coordinator::start(store(), options, sums.clone()).await.unwrap();
    let client = client(&coordinator);
    let ids = submit_plain(&coordinator, 4).await;
    client.submit(plain()).await.unwrap();
    client.cancel_pending(ids[3]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut worker = Worker::new("w", 3);
    worker.exchange(&coordinator).await;
    assert_eq!((sums.of("claimed"), sums.of("waited")), (3, 6_000));
    worker.end(worker.held[0], Outcome::Succeeded);
    worker.end(worker.held[0], Outcome::Failed);
    let finished = worker.finished.clone();
    worker.exchange(&coordinator).await;
    // Taken before: not counted again.
    worker.finished = finished;
    worker.exchange(&coordinator).await;
    assert_eq!((sums.of("submitted"), sums.of("cancelled"), sums.of("heartbeat")), (5, 1, 3));
    assert_eq!((sums.of("completed"), sums.of("failed"), sums.of("duration")), (1, 1, 1));
    assert_eq!(sums.of("lease_lost"), 0);
    let mut heir = Worker::new("heir", 3).waiting(Duration::from_secs(60));
    while heir.held.len() < 2 {
        heir.exchange(&coordinator).await;
    }
    assert_eq!((sums.of("lease_lost"), sums.of("claimed")), (2, 6));
    tokio::time::sleep(Duration::from_secs(3_700)).await;
    assert_eq!(sums.of("cleaned"), 3);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_run_is_counted_once_with_how_long_it_took() {
    let sums = Arc::new(Sums::default());
    let coordinator = Coordinator::start(store(), options(), sums.clone()).await.unwrap();
    let run = Plan::new(&["a", "b: a"]).submit(&coordinator).await;
    let mut worker = Worker::new("w", 1);
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        worker.exchange(&coordinator).await;
        worker.end_all();
    }
    assert_eq!(sums.of("run_duration"), 0, "it isn't over");
    let finished = worker.finished.clone();
    worker.exchange(&coordinator).await;
    worker.finished = finished;
    worker.exchange(&coordinator).await;
    assert_eq!((sums.of("completed"), sums.of("run_duration")), (2 + 1, 4_000));
    // Of another all jobs that wait end by request.
    let other = Plan::new(&["a"]).submit(&coordinator).await;
    for id in [run.id, other.id, other.id] {
        client(&coordinator).cancel_run(id, RunCancel::InOrder).await.unwrap();
    }
    assert_eq!((sums.of("completed"), sums.of("cancelled")), (2 + 1, 1 + 1), "jobs and runs");
}

#[tokio::test(start_paused = true)]
async fn workers_own_totals_are_added_up_without_counting_twice() {
    let store = store();
    let sums = Arc::new(Sums::default());
    let coordinator = Coordinator::start(store.clone(), options(), sums.clone()).await.unwrap();
    let counters = |n: u64| WorkerCounters {
        cache_hits: n,
        cache_misses: 2 * n,
        cache_bytes: 1_000 * n,
        downloads: 3 * n,
        download_micros: 4 * n,
    };
    let mut workers = [Worker::new("a", 1), Worker::new("b", 1)];
    for n in [1, 1, 5] {
        for worker in &mut workers {
            let mut report = worker.report();
            report.counters = counters(n);
            coordinator.exchange(report).await.unwrap();
        }
    }
    let all = ["cache_hits", "cache_misses", "downloads", "download_micros"].map(|what| sums.of(what));
    assert_eq!(all, [10, 20, 30, 40]);
    assert_eq!(coordinator.gauges().await.unwrap().cache_bytes, 10_000);
    // The next coordinator counts from where they stand.
    let after = Arc::new(Sums::default());
    let coordinator = Coordinator::start(store, options(), after.clone()).await.unwrap();
    for n in [5, 6] {
        let mut report = workers[0].report();
        report.counters = counters(n);
        coordinator.exchange(report).await.unwrap();
    }
    assert_eq!(after.of("cache_hits"), 1);
}

#[tokio::test(start_paused = true)]
async fn gauges_show_what_waits_and_who_is_there() {
    let coordinator = Coordinator::start(store(), options(), Arc::new(Sums::default())).await.unwrap();
    submit_plain(&coordinator, 3).await;
    let mut worker = Worker::new("w", 1);
    worker.exchange(&coordinator).await;
    let gauges = coordinator.gauges().await.unwrap();
    assert_eq!((gauges.jobs_in_queue, gauges.active_executors), (2, 1));
    assert!(gauges.store.queries > 0);
}
