//! Many things at once, on several threads, with connections that break.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use executr_api::{CancelWait, Client, JobState, Outcome, OutputEvent, OutputFollow, Verdict, WorkerApi};
use executr_coordinator::Coordinator;
use executr_spec::JobId;
use executr_store::Store;
use futures_util::StreamExt as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::support::{Worker, append, client, connect, database, embedded, job, start, start_on, store};

const WORKERS: usize = 12;
const JOBS: usize = 400;

/// A small source of chance, the same in every run.
struct Chance(u64);

impl Chance {
    fn one_in(&mut self, n: u64) -> bool {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.is_multiple_of(n)
    }
}

/// Workers whose exchanges break now and then, against one or several coordinators on the same store.
async fn storm(store: Arc<dyn Store>, coordinators: Vec<Coordinator>) {
    let deadline = Instant::now() + Duration::from_secs(90);
    let ended = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for n in 0..WORKERS {
        let (coordinators, ended) = (coordinators.clone(), Arc::clone(&ended));
        tasks.spawn(async move {
            let mut chance = Chance(n as u64 + 1);
            let mut worker = Worker::new(&format!("w{n}"), 3).waiting(Duration::from_secs(5));
            let mut accepted = Vec::new();
            let mut at = n % coordinators.len();
            while ended.load(Ordering::Acquire) < JOBS {
                assert!(Instant::now() < deadline, "{} of {JOBS} ended", ended.load(Ordering::Acquire));
                for fence in worker.held.clone() {
                    if chance.one_in(2) {
                        worker.end(fence, Outcome::Succeeded);
                    }
                }
                // Now and then a balancer sends it elsewhere.
                if chance.one_in(20) {
                    at = (at + 1) % coordinators.len();
                }
                let patience = Duration::from_millis(if chance.one_in(3) { 0 } else { 50 });
                // An exchange that is given up: what it did is done, its answer is lost.
                let Ok(orders) = timeout(patience, coordinators[at].exchange(worker.report())).await else { continue };
                let orders = orders.unwrap();
                for verdict in &orders.verdicts {
                    assert_eq!(verdict.verdict, Verdict::Accepted, "nobody else had it");
                    accepted.push(verdict.fence.job);
                }
                ended.fetch_add(orders.verdicts.len(), Ordering::AcqRel);
                worker.follow(&orders);
                assert!(coordinators.len() > 1 || worker.held.len() <= 3, "{} held", worker.held.len());
            }
            accepted
        });
    }
    let mut ids = Vec::new();
    for burst in 0..JOBS / 20 {
        let free = r#"{"steps":[{"argv":["true"]}]}"#;
        let keyed = r#"{"steps":[{"argv":["true"]}],"concurrency_key":"k","concurrency_limit":2}"#;
        let text = if burst % 4 == 0 { keyed } else { free };
        let coordinator = &coordinators[burst % coordinators.len()];
        let jobs = client(coordinator).submit_bulk(vec![job(text); 20]).await.unwrap();
        ids.extend(jobs.into_iter().map(|job| job.id));
        tokio::task::yield_now().await;
    }
    let mut times = HashMap::<JobId, u32>::new();
    while let Some(accepted) = tasks.join_next().await {
        for id in accepted.unwrap() {
            *times.entry(id).or_default() += 1;
        }
    }
    for id in ids {
        let job = store.job(id).await.unwrap().unwrap();
        assert_eq!((job.state, job.attempt, times[&id]), (JobState::Completed, 1, 1), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_job_ends_once_however_many_connections_break() {
    let store = store();
    let coordinator = start(&store).await;
    storm(store, vec![coordinator]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn and_so_it_is_on_the_embedded_store() {
    let (_directory, store) = embedded().await;
    let coordinator = start_on(Arc::clone(&store)).await;
    storm(store, vec![coordinator]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn and_with_two_coordinators_on_one_postgresql() {
    let Some(database) = database().await else { return };
    let (one, other) = (connect(&database).await, connect(&database).await);
    let coordinators = vec![start_on(Arc::clone(&one)).await, start_on(other).await];
    storm(one, coordinators).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coordinators_on_one_postgresql_wake_each_others_workers_users_and_readers() {
    let Some(database) = database().await else { return };
    let one = start_on(connect(&database).await).await;
    let other = start_on(connect(&database).await).await;
    let mut worker = Worker::new("w", 1);
    worker.exchange(&one).await;
    worker.wait = Duration::from_secs(60);
    let exchange = tokio::spawn({
        let (one, report) = (one.clone(), worker.report());
        async move { one.exchange(report).await.unwrap() }
    });
    let id = client(&other).submit(job(r#"{"steps":[{"argv":["true"]}]}"#)).await.unwrap().id;
    let orders = exchange.await.unwrap();
    worker.follow(&orders);
    // A hold that ran out before the submission brings nothing; then the next exchange does.
    while worker.held.is_empty() {
        worker.exchange(&one).await;
    }
    let asked = OutputFollow { follow: true, ..OutputFollow::default() };
    let mut reader = client(&other).output(id, asked).await.unwrap();
    assert_eq!(reader.next().await.unwrap().unwrap(), OutputEvent::Attempt(1));
    let waiting = tokio::spawn({
        let client = client(&other);
        async move { client.cancel(id, CancelWait::AtMost(Duration::from_secs(60))).await.unwrap() }
    });
    append(&one, &worker.held[0], 0, "live").await.unwrap();
    assert!(matches!(reader.next().await.unwrap().unwrap(), OutputEvent::Chunk(chunk) if chunk.end() == 4));
    while worker.exchange(&one).await.cancels.is_empty() {}
    worker.end(worker.held[0], Outcome::Cancelled);
    worker.exchange(&one).await;
    assert_eq!(waiting.await.unwrap().state, JobState::Cancelled);
    assert_eq!(reader.next().await.unwrap().unwrap(), OutputEvent::End(executr_api::JobStatus::Cancelled));
}
