//! A coordinator that dies, and the next one on the same store.

use std::collections::BTreeSet;
use std::time::Duration;

use executr_api::{Client, JobState, JobStatus, Verdict};
use executr_store::Store;
use tokio::time::{Instant, sleep};

use crate::support::{LEASE, Worker, client, start, store, submit_plain, verdicts};

#[tokio::test(start_paused = true)]
async fn a_hundred_running_jobs_survive_a_minute_without_a_coordinator() {
    let store = store();
    let coordinator = start(&store).await;
    let ids = submit_plain(&coordinator, 100).await;
    let mut workers: Vec<_> =
        (0..10).map(|n| Worker::new(&format!("w{n}"), 10).waiting(Duration::from_secs(60))).collect();
    for worker in &mut workers {
        worker.exchange(&coordinator).await;
        assert_eq!(worker.held.len(), 10);
    }
    drop(coordinator);
    sleep(Duration::from_secs(60)).await;
    // Half of them end meanwhile.
    for worker in &mut workers[..5] {
        worker.end_all();
    }
    let coordinator = start(&store).await;
    let mut idle = Worker::new("idle", 100).waiting(Duration::from_secs(60));
    assert!(idle.exchange(&coordinator).await.is_empty(), "nobody takes what still has a holder");
    for worker in &mut workers {
        let ended = worker.finished.len();
        worker.wait = Duration::ZERO;
        let orders = worker.exchange(&coordinator).await;
        assert_eq!(verdicts(&orders), vec![Verdict::Accepted; ended]);
        assert!(orders.releases.is_empty() && orders.leases.is_empty());
    }
    // All beats are in, so even after the first lease period nothing is up for reclaiming.
    let begin = Instant::now();
    while begin.elapsed() < LEASE * 2 {
        sleep(LEASE / 3).await;
        for worker in &mut workers {
            worker.exchange(&coordinator).await;
        }
    }
    assert!(idle.exchange(&coordinator).await.is_empty());
    for worker in &mut workers {
        worker.end_all();
        let orders = worker.exchange(&coordinator).await;
        assert!(verdicts(&orders).iter().all(|verdict| *verdict == Verdict::Accepted));
    }
    for id in ids {
        let job = store.job(id).await.unwrap().unwrap();
        assert_eq!((job.state, job.attempt, job.lost_leases), (JobState::Completed, 1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_reclaimed_before_a_whole_lease_period_and_everything_after() {
    let store = store();
    let coordinator = start(&store).await;
    let ids: BTreeSet<_> = submit_plain(&coordinator, 20).await.into_iter().collect();
    Worker::new("gone", 20).exchange(&coordinator).await;
    drop(coordinator);
    sleep(LEASE * 10).await;
    let coordinator = start(&store).await;
    let begin = Instant::now();
    let mut other = Worker::new("other", 20).waiting(Duration::from_secs(60));
    while other.held.is_empty() {
        assert!(begin.elapsed() < LEASE + Duration::from_secs(1));
        other.exchange(&coordinator).await;
    }
    assert!(begin.elapsed() >= LEASE, "{:?}", begin.elapsed());
    while other.held.len() < ids.len() {
        assert!(!other.exchange(&coordinator).await.is_empty());
    }
    assert_eq!(other.held.iter().map(|fence| fence.job).collect::<BTreeSet<_>>(), ids);
    assert!(other.held.iter().all(|fence| fence.attempt == 2));
}

#[tokio::test(start_paused = true)]
async fn an_answer_lost_in_a_restart_is_given_again() {
    let store = store();
    let coordinator = start(&store).await;
    submit_plain(&coordinator, 5).await;
    let mut worker = Worker::new("w", 2);
    let unheard = worker.exchange_unheard(&coordinator).await;
    drop(coordinator);
    let coordinator = start(&store).await;
    let orders = worker.exchange(&coordinator).await;
    assert_eq!(orders.leases, unheard.leases);
}

#[tokio::test(start_paused = true)]
async fn what_was_ready_before_the_start_is_found() {
    let store = store();
    let coordinator = start(&store).await;
    submit_plain(&coordinator, 1).await;
    drop(coordinator);
    let coordinator = start(&store).await;
    let mut worker = Worker::new("w", 1);
    worker.exchange(&coordinator).await;
    assert_eq!(worker.held.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_workers_die_again_and_again_fails_in_the_end() {
    let store = store();
    let coordinator = start(&store).await;
    let id = submit_plain(&coordinator, 1).await[0];
    let waiting = tokio::spawn({
        let client = client(&coordinator);
        async move { client.wait(id, LEASE * 20).await.unwrap() }
    });
    for n in 1..=3 {
        let mut doomed = Worker::new(&format!("doomed{n}"), 1).waiting(Duration::from_secs(60));
        while doomed.held.is_empty() {
            doomed.exchange(&coordinator).await;
        }
    }
    let ended = waiting.await.unwrap();
    assert_eq!((ended.status, ended.lost_leases, ended.retry_count), (JobStatus::Failed, 3, 0));
    assert!(ended.error_message.unwrap().contains("lost 3 times"));
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_that_goes_ends_the_background_work() {
    let store = store();
    let coordinator = start(&store).await;
    let client = client(&coordinator);
    drop(coordinator);
    sleep(Duration::from_secs(60)).await;
    client.stats().await.unwrap();
    assert_eq!(std::sync::Arc::strong_count(&store), 2, "held by the coordinator behind the client");
    drop(client);
    crate::support::settle().await;
    assert_eq!(std::sync::Arc::strong_count(&store), 1);
}
