//! Which leases are renewed, and for whom.

use std::time::Duration;

use executr_api::{CancelWait, Client, Outcome, Verdict};
use executr_store::Store;
use tokio::time::sleep;

use crate::support::{LEASE, Probe, Worker, append, client, open, start, store, submit, submit_plain, verdicts};

const EXCLUSIVE: &str = r#"{"steps":[{"argv":["true"]}],"exclusive":true}"#;

#[tokio::test(start_paused = true)]
async fn the_lease_of_a_dead_process_stays_with_the_one_that_delivers_for_it() {
    let store = store();
    let coordinator = start(&store).await;
    submit_plain(&coordinator, 1).await;
    let mut dead = Worker::new("dead", 1);
    dead.exchange(&coordinator).await;
    let fence = dead.held[0];
    let mut next = Worker::new("next", 1);
    next.held.push(fence);
    for _ in 0..60 {
        sleep(Duration::from_secs(1)).await;
        assert!(next.exchange(&coordinator).await.releases.is_empty());
    }
    append(&coordinator, &fence, 0, "the rest").await.unwrap();
    next.end(fence, Outcome::Succeeded);
    assert_eq!(verdicts(&next.exchange(&coordinator).await), [Verdict::Accepted]);
}

#[tokio::test(start_paused = true)]
async fn who_delivers_for_a_dead_process_is_told_of_a_cancel_and_of_the_end() {
    let store = store();
    let coordinator = start(&store).await;
    let id = submit_plain(&coordinator, 1).await[0];
    let mut dead = Worker::new("dead", 1);
    dead.exchange(&coordinator).await;
    let mut next = Worker::new("next", 1);
    next.held.push(dead.held[0]);
    next.exchange(&coordinator).await;
    client(&coordinator).cancel(id, CancelWait::No).await.unwrap();
    sleep(LEASE / 3).await;
    assert_eq!(next.exchange(&coordinator).await.cancels, dead.held);
    dead.end_all();
    dead.exchange(&coordinator).await;
    sleep(LEASE / 3).await;
    assert_eq!(next.exchange(&coordinator).await.releases.len(), 1);
}

/// How long the worker's only lease lasts from now.
async fn left(store: &Probe, worker: &Worker) -> Duration {
    let leases = store.leases_of(&worker.hello.id).await.unwrap();
    assert_eq!(leases.len(), 1);
    leases[0].expires_at.since(store.now().await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn an_exclusive_job_is_renewed_by_every_exchange() {
    let store = store();
    let coordinator = start(&store).await;
    submit(&coordinator, EXCLUSIVE).await;
    let mut worker = Worker::new("w", 1);
    worker.exchange(&coordinator).await;
    for _ in 0..5 {
        sleep(Duration::from_secs(1)).await;
        worker.exchange(&coordinator).await;
        assert!(left(&store, &worker).await > LEASE - Duration::from_millis(100));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_told_again_is_renewed_before() {
    let store = store();
    let coordinator = start(&store).await;
    submit(&coordinator, EXCLUSIVE).await;
    let mut worker = Worker::new("w", 1);
    worker.exchange_unheard(&coordinator).await;
    sleep(Duration::from_secs(4)).await;
    worker.exchange(&coordinator).await;
    assert_eq!(worker.held.len(), 1);
    assert!(left(&store, &worker).await > LEASE - Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn a_cancel_while_the_claim_is_under_way_is_told_with_the_lease() {
    let store = store();
    let coordinator = start(&store).await;
    let id = submit_plain(&coordinator, 1).await[0];
    let mut worker = Worker::new("w", 1).waiting(Duration::from_secs(5));
    store.stall("claim", true);
    let exchange = open(&coordinator, &mut worker).await;
    client(&coordinator).cancel(id, CancelWait::No).await.unwrap();
    store.stall("claim", false);
    let orders = exchange.await.unwrap();
    worker.follow(&orders);
    assert_eq!((worker.held.len(), orders.cancels), (1, worker.held.clone()));
}
