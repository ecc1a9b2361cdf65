//! Many things at once, on several threads, with connections that break.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use executr_api::{Client, JobState, Outcome, Verdict, WorkerApi};
use executr_spec::JobId;
use executr_store::Store;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::support::{Worker, client, job, start, store};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_job_ends_once_however_many_connections_break() {
    let store = store();
    let coordinator = start(&store).await;
    let deadline = Instant::now() + Duration::from_secs(60);
    let ended = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for n in 0..WORKERS {
        let (coordinator, ended) = (coordinator.clone(), Arc::clone(&ended));
        tasks.spawn(async move {
            let mut chance = Chance(n as u64 + 1);
            let mut worker = Worker::new(&format!("w{n}"), 3).waiting(Duration::from_secs(5));
            let mut accepted = Vec::new();
            while ended.load(Ordering::Acquire) < JOBS {
                assert!(Instant::now() < deadline, "{} of {JOBS} ended", ended.load(Ordering::Acquire));
                for fence in worker.held.clone() {
                    if chance.one_in(2) {
                        worker.end(fence, Outcome::Succeeded);
                    }
                }
                let patience = Duration::from_millis(if chance.one_in(3) { 0 } else { 20 });
                // An exchange that is given up: what it did is done, its answer is lost.
                let Ok(orders) = timeout(patience, coordinator.exchange(worker.report())).await else { continue };
                let orders = orders.unwrap();
                for verdict in &orders.verdicts {
                    assert_eq!(verdict.verdict, Verdict::Accepted, "nobody else had it");
                    accepted.push(verdict.fence.job);
                }
                ended.fetch_add(orders.verdicts.len(), Ordering::AcqRel);
                worker.follow(&orders);
                assert!(worker.held.len() <= 3, "{} held", worker.held.len());
            }
            accepted
        });
    }
    let mut ids = Vec::new();
    for burst in 0..JOBS / 20 {
        let queue = r#"{"steps":[{"argv":["true"]}]}"#;
        let keyed = r#"{"steps":[{"argv":["true"]}],"concurrency_key":"k","concurrency_limit":2}"#;
        let text = if burst % 4 == 0 { keyed } else { queue };
        let jobs = client(&coordinator).submit_bulk(vec![job(text); 20]).await.unwrap();
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
