//! What workers cost that have nothing to do.

use std::time::Duration;

use executr_api::Client;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::{Worker, client, job, open, settle, start, store, submit_plain};

#[tokio::test(start_paused = true)]
async fn a_thousand_idle_workers_ask_the_store_nothing() {
    let store = store();
    let coordinator = start(&store).await;
    let mut workers: Vec<_> =
        (0..1_000).map(|n| Worker::new(&format!("w{n}"), 1).waiting(Duration::from_secs(60))).collect();
    let mut first = JoinSet::new();
    for worker in &mut workers {
        let (coordinator, report) = (coordinator.clone(), worker.report());
        first.spawn(async move { executr_api::WorkerApi::exchange(&coordinator, report).await });
    }
    while let Some(answer) = first.join_next().await {
        assert!(answer.unwrap().unwrap().is_empty());
    }
    let begin = Instant::now();
    store.take_calls();
    let mut exchanges = JoinSet::new();
    for mut worker in workers {
        let coordinator = coordinator.clone();
        exchanges.spawn(async move {
            for _ in 0..10 {
                assert!(worker.exchange(&coordinator).await.is_empty());
            }
        });
    }
    while let Some(exchange) = exchanges.join_next().await {
        exchange.unwrap();
    }
    assert_eq!(begin.elapsed().as_secs(), 50, "each exchange is held for a third of a lease");
    let calls = store.take_calls();
    let looks = calls.get("classes").copied().unwrap_or_default();
    assert!(looks <= 11, "one look every 5 s, for all: {looks}");
    assert_eq!(calls.into_keys().filter(|command| *command != "classes").collect::<Vec<_>>(), Vec::<&str>::new());
}

#[tokio::test(start_paused = true)]
async fn a_job_wakes_no_more_workers_than_it_takes() {
    let store = store();
    let coordinator = start(&store).await;
    let mut exchanges = Vec::new();
    for n in 0..1_000 {
        let mut worker = Worker::new(&format!("w{n}"), 1).waiting(Duration::from_secs(60));
        let (coordinator, report) = (coordinator.clone(), worker.report());
        exchanges
            .push(tokio::spawn(async move { executr_api::WorkerApi::exchange(&coordinator, report).await.unwrap() }));
    }
    settle().await;
    store.take_calls();
    submit_plain(&coordinator, 1).await;
    settle().await;
    assert_eq!(exchanges.iter().filter(|exchange| exchange.is_finished()).count(), 1);
    let calls = store.take_calls();
    assert!(calls["claim"] <= 2, "the one, and one more that finds nothing: {calls:?}");
    submit_plain(&coordinator, 100).await;
    settle().await;
    assert_eq!(exchanges.iter().filter(|exchange| exchange.is_finished()).count(), 101);
    let calls = store.take_calls();
    assert!(calls["claim"] <= 10, "claims go together: {calls:?}");
}

#[tokio::test(start_paused = true)]
async fn jobs_wake_only_workers_that_can_run_them() {
    let store = store();
    let coordinator = start(&store).await;
    let mut plain = Worker::new("plain", 1).waiting(Duration::from_secs(60));
    let mut able = Worker::new("able", 1).waiting(Duration::from_secs(60));
    able.hello.offers.labels.insert("gpu".to_owned(), "yes".to_owned());
    let mut elsewhere = Worker::new("elsewhere", 1).waiting(Duration::from_secs(60)).serving(&[("other", 1)]);
    let unable = [open(&coordinator, &mut plain).await, open(&coordinator, &mut elsewhere).await];
    let able = open(&coordinator, &mut able).await;
    store.take_calls();
    let labelled = job(r#"{"steps":[{"argv":["true"]}],"labels":{"gpu":"yes"}}"#);
    client(&coordinator).submit_bulk(vec![labelled; 5]).await.unwrap();
    assert_eq!(able.await.unwrap().leases.len(), 1);
    settle().await;
    assert!(unable.iter().all(|exchange| !exchange.is_finished()));
    assert_eq!(store.take_calls().get("claim"), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn a_job_is_not_left_waiting_by_a_wake_that_went_to_a_broken_connection() {
    let store = store();
    let coordinator = start(&store).await;
    let mut first = Worker::new("first", 1).waiting(Duration::from_secs(60));
    let mut second = Worker::new("second", 1).waiting(Duration::from_secs(60));
    let broken = open(&coordinator, &mut first).await;
    let second = open(&coordinator, &mut second).await;
    let begin = Instant::now();
    // Both happen before the first exchange runs again.
    let submitting = tokio::spawn({
        let coordinator = coordinator.clone();
        async move { submit_plain(&coordinator, 1).await }
    });
    broken.abort();
    submitting.await.unwrap();
    settle().await;
    assert_eq!(second.await.unwrap().leases.len(), 1);
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_shared_out_without_anybody_asking_in_vain_for_long() {
    let store = store();
    let coordinator = start(&store).await;
    let ids = submit_plain(&coordinator, 600).await;
    store.take_calls();
    let mut workers = JoinSet::new();
    for n in 0..20 {
        let coordinator = coordinator.clone();
        workers.spawn(async move {
            let mut worker = Worker::new(&format!("w{n}"), 4).waiting(Duration::from_secs(1));
            let mut ran = Vec::new();
            loop {
                let orders = worker.exchange(&coordinator).await;
                ran.extend(worker.held.iter().map(|fence| fence.job));
                worker.end_all();
                if orders.is_empty() {
                    return ran;
                }
            }
        });
    }
    let mut ran = Vec::new();
    while let Some(worker) = workers.join_next().await {
        ran.extend(worker.unwrap());
    }
    ran.sort();
    assert_eq!(
        ran,
        {
            let mut ids = ids;
            ids.sort();
            ids
        },
        "each job once"
    );
    let calls = store.take_calls();
    assert!(calls["claim"] <= 60 && calls["finish"] <= 60, "batches carry many: {calls:?}");
}
