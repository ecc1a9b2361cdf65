//! A store that goes away and comes back.

use std::time::Duration;

use executr_api::{ErrorCode, JobState, Verdict, WorkerApi};
use executr_store::Store;
use tokio::time::{Instant, sleep};

use crate::support::{LEASE, Worker, open, settle, start, store, submit_plain, verdicts};

const COMMANDS: [&str; 8] = ["now", "advance", "renew", "claim", "finish", "leases_of", "classes", "put_workers"];

#[tokio::test(start_paused = true)]
async fn jobs_that_ran_through_a_minute_without_the_store_run_once() {
    let store = store();
    let coordinator = start(&store).await;
    let ids = submit_plain(&coordinator, 20).await;
    let mut worker = Worker::new("w", 20);
    worker.exchange(&coordinator).await;
    assert_eq!(worker.held.len(), 20);
    for _ in 0..10 {
        sleep(LEASE / 5).await;
        worker.exchange(&coordinator).await;
    }
    for command in COMMANDS {
        store.fail(command, true);
    }
    for _ in 0..6 {
        sleep(Duration::from_secs(10)).await;
        assert_eq!(coordinator.exchange(worker.report()).await.unwrap_err().code, ErrorCode::Unavailable);
    }
    for command in COMMANDS {
        store.fail(command, false);
    }
    // The worker waits before it tries again, and another one comes first.
    let mut idle = Worker::new("idle", 20).waiting(Duration::from_secs(5));
    assert!(idle.exchange(&coordinator).await.leases.is_empty(), "nobody takes what still has a holder");
    let begin = Instant::now();
    while begin.elapsed() < LEASE * 2 {
        assert!(worker.exchange(&coordinator).await.releases.is_empty());
        sleep(LEASE / 5).await;
    }
    assert!(idle.exchange(&coordinator).await.leases.is_empty());
    worker.end_all();
    assert_eq!(verdicts(&worker.exchange(&coordinator).await), [Verdict::Accepted; 20]);
    for id in ids {
        let job = store.job(id).await.unwrap().unwrap();
        assert_eq!((job.state, job.attempt, job.lost_leases), (JobState::Completed, 1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_holds_the_sweep_until_it_is_back_reclaims_nothing_either() {
    let store = store();
    let coordinator = start(&store).await;
    submit_plain(&coordinator, 5).await;
    let mut worker = Worker::new("w", 5);
    worker.exchange(&coordinator).await;
    for _ in 0..10 {
        sleep(LEASE / 5).await;
        worker.exchange(&coordinator).await;
    }
    store.stall("now", true);
    sleep(Duration::from_secs(60)).await;
    store.stall("now", false);
    let mut idle = Worker::new("idle", 5).waiting(Duration::from_secs(5));
    assert!(idle.exchange(&coordinator).await.leases.is_empty());
    worker.exchange(&coordinator).await;
    worker.end_all();
    assert_eq!(verdicts(&worker.exchange(&coordinator).await), [Verdict::Accepted; 5]);
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_the_store_lost_is_found_again() {
    let store = store();
    let coordinator = start(&store).await;
    submit_plain(&coordinator, 10).await;
    let mut worker = Worker::new("w", 4);
    store.lose_claims(true);
    assert_eq!(coordinator.exchange(worker.report()).await.unwrap_err().code, ErrorCode::Unavailable);
    store.lose_claims(false);
    worker.exchange(&coordinator).await;
    assert_eq!(worker.held.len(), 4);
    assert_eq!(store.leases_of(&worker.hello.id).await.unwrap().len(), 4, "and no others are taken besides");
}

#[tokio::test(start_paused = true)]
async fn after_a_claim_that_took_long_the_leases_are_read_again() {
    let store = store();
    let coordinator = start(&store).await;
    submit_plain(&coordinator, 1).await;
    let mut worker = Worker::new("w", 2).waiting(Duration::from_secs(5));
    store.stall("claim", true);
    let exchange = open(&coordinator, &mut worker).await;
    sleep(Duration::from_secs(2)).await;
    store.take_calls();
    store.stall("claim", false);
    worker.follow(&exchange.await.unwrap());
    settle().await;
    assert_eq!(worker.held.len(), 1);
    assert_eq!(store.take_calls().get("leases_of"), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn health_says_soon_that_the_store_does_not_answer() {
    let store = store();
    let coordinator = start(&store).await;
    coordinator.health().await.unwrap();
    store.stall("ping", true);
    let begin = Instant::now();
    assert_eq!(coordinator.health().await.unwrap_err().code, ErrorCode::Unavailable);
    assert!(begin.elapsed() < Duration::from_secs(5));
}
