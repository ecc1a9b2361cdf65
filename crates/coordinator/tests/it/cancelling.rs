//! Cancelling, and waiting for the end.

use std::time::Duration;

use executr_api::{CancelWait, Client, ErrorCode, JobState, Outcome, RunCancel};
use executr_spec::JobId;
use executr_store::{Signal, Store};
use tokio::time::Instant;
use uuid::Uuid;

use crate::support::{LEASE, Worker, client, open, settle, start, store, submit, submit_plain};

const MINUTE: CancelWait = CancelWait::AtMost(Duration::from_secs(60));

#[tokio::test(start_paused = true)]
async fn a_waiting_job_is_cancelled_at_once_and_frees_its_key() {
    let store = store();
    let coordinator = start(&store).await;
    let keyed = r#"{"steps":[{"argv":["true"]}],"concurrency_key":"k"}"#;
    let first = submit(&coordinator, keyed).await;
    let second = submit(&coordinator, keyed).await;
    let view = client(&coordinator).cancel(first.id, MINUTE).await.unwrap();
    assert_eq!((view.state, view.error_message.as_deref()), (JobState::Cancelled, Some("cancelled by request")));
    let mut worker = Worker::new("w", 2);
    worker.exchange(&coordinator).await;
    assert_eq!(worker.held.iter().map(|fence| fence.job).collect::<Vec<_>>(), [second.id]);
}

#[tokio::test(start_paused = true)]
async fn the_order_to_stop_reaches_a_waiting_exchange_at_once_and_the_answer_waits_for_the_end() {
    let store = store();
    let coordinator = start(&store).await;
    let id = submit_plain(&coordinator, 1).await[0];
    let mut worker = Worker::new("w", 1).waiting(Duration::from_secs(60));
    worker.exchange(&coordinator).await;
    let exchange = open(&coordinator, &mut worker).await;
    let begin = Instant::now();
    let cancelling = tokio::spawn({
        let client = client(&coordinator);
        async move { client.cancel(id, MINUTE).await.unwrap() }
    });
    let orders = exchange.await.unwrap();
    assert_eq!(orders.cancels, worker.held);
    settle().await;
    assert!(!cancelling.is_finished(), "the process tree is not gone yet");
    worker.end(worker.held[0], Outcome::Cancelled);
    worker.exchange(&coordinator).await;
    assert_eq!(cancelling.await.unwrap().state, JobState::Cancelled);
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_order_to_stop_is_repeated_now_and_then_until_it_is_followed() {
    let store = store();
    let coordinator = start(&store).await;
    let id = submit_plain(&coordinator, 1).await[0];
    let mut worker = Worker::new("w", 1).waiting(Duration::from_millis(100));
    worker.exchange(&coordinator).await;
    let view = client(&coordinator).cancel(id, CancelWait::No).await.unwrap();
    assert_eq!(view.state, JobState::Cancelling);
    let mut orders = 0;
    for _ in 0..100 {
        orders += worker.exchange(&coordinator).await.cancels.len();
    }
    assert_eq!(orders, 5, "10 s are five times 2 s");
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_cancelled_job_is_bounded() {
    let store = store();
    let coordinator = start(&store).await;
    let id = submit_plain(&coordinator, 1).await[0];
    Worker::new("w", 1).exchange(&coordinator).await;
    let begin = Instant::now();
    let view = client(&coordinator).cancel(id, CancelWait::AtMost(Duration::from_secs(3))).await.unwrap();
    assert_eq!((view.state, begin.elapsed()), (JobState::Cancelling, Duration::from_secs(3)));
    let view = client(&coordinator).cancel(id, CancelWait::AtMost(LEASE * 2)).await.unwrap();
    assert_eq!(view.state, JobState::Cancelled, "its worker is gone, so its lease runs out");
}

#[tokio::test(start_paused = true)]
async fn a_worker_connected_elsewhere_is_reached_through_the_store() {
    let store = store();
    let (one, other) = (start(&store).await, start(&store).await);
    let id = submit_plain(&one, 1).await[0];
    let mut worker = Worker::new("w", 1).waiting(Duration::from_secs(60));
    worker.exchange(&one).await;
    let exchange = open(&one, &mut worker).await;
    store.take_published();
    client(&other).cancel(id, CancelWait::No).await.unwrap();
    let told = store.take_published();
    assert!(told.contains(&Signal::Cancelling(id, worker.hello.id.clone(), RunCancel::InOrder)), "{told:?}");
    let begin = Instant::now();
    told.into_iter().for_each(|signal| store.signal(signal));
    assert_eq!(exchange.await.unwrap().cancels, worker.held);
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn even_a_lost_signal_stops_the_job_with_the_next_beat() {
    let store = store();
    let (one, other) = (start(&store).await, start(&store).await);
    let id = submit_plain(&one, 1).await[0];
    let mut worker = Worker::new("w", 1).waiting(Duration::from_secs(60));
    worker.exchange(&one).await;
    client(&other).cancel(id, CancelWait::No).await.unwrap();
    let begin = Instant::now();
    while worker.exchange(&one).await.cancels.is_empty() {
        assert!(begin.elapsed() < LEASE);
    }
}

#[tokio::test(start_paused = true)]
async fn the_originals_calls_cancel_only_what_is_pending() {
    let store = store();
    let coordinator = start(&store).await;
    let client = client(&coordinator);
    let ids = submit_plain(&coordinator, 3).await;
    Worker::new("w", 1).exchange(&coordinator).await;
    let unknown = JobId(Uuid::nil());
    let error = client.cancel_pending(ids[0]).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::BadRequest);
    assert!(error.message.contains("is not pending but running"), "{error}");
    assert_eq!(client.cancel_pending(unknown).await.unwrap_err().code, ErrorCode::NotFound);
    client.cancel_pending(ids[1]).await.unwrap();
    let error = client.cancel_pending(ids[1]).await.unwrap_err();
    assert!(error.message.contains("is not pending but cancelled"), "{error}");
    let answer = client.cancel_bulk(vec![ids[0], ids[1], ids[2], unknown]).await.unwrap();
    assert_eq!((answer.cancelled, answer.failed, answer.errors.len()), (1, 3, 3));
    assert_eq!(store.job(ids[0]).await.unwrap().unwrap().state, JobState::Running);
    assert_eq!(client.cancel(unknown, MINUTE).await.unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(client.cancel_bulk(vec![unknown; 10_001]).await.unwrap_err().code, ErrorCode::BadRequest);
}

#[tokio::test(start_paused = true)]
async fn an_ended_job_stays_as_it_is() {
    let store = store();
    let coordinator = start(&store).await;
    let id = submit_plain(&coordinator, 1).await[0];
    let mut worker = Worker::new("w", 1);
    worker.exchange(&coordinator).await;
    worker.end_all();
    worker.exchange(&coordinator).await;
    assert_eq!(client(&coordinator).cancel(id, MINUTE).await.unwrap().state, JobState::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_wait_returns_when_its_time_is_over() {
    let store = store();
    let coordinator = start(&store).await;
    let id = submit_plain(&coordinator, 1).await[0];
    let begin = Instant::now();
    let view = client(&coordinator).wait(id, Duration::from_secs(7)).await.unwrap();
    assert_eq!((view.state, begin.elapsed()), (JobState::Ready, Duration::from_secs(7)));
    let unknown = client(&coordinator).wait(JobId(Uuid::nil()), Duration::from_secs(7)).await;
    assert_eq!(unknown.unwrap_err().code, ErrorCode::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_wait_hears_of_ends_at_other_coordinators() {
    let store = store();
    let (one, other) = (start(&store).await, start(&store).await);
    let id = submit_plain(&one, 1).await[0];
    let waiting = tokio::spawn({
        let client = client(&one);
        async move { client.wait(id, Duration::from_secs(60)).await.unwrap() }
    });
    let mut worker = Worker::new("w", 1);
    worker.exchange(&other).await;
    worker.end_all();
    worker.exchange(&other).await;
    let begin = Instant::now();
    store.take_published().into_iter().for_each(|signal| store.signal(signal));
    assert_eq!(waiting.await.unwrap().state, JobState::Completed);
    assert_eq!(begin.elapsed(), Duration::ZERO);
}
