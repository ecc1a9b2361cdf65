//! Submitting twice.

use std::time::Duration;

use executr_api::JobState;
use executr_store::NewJob;

use super::Harness;
use super::stage::{Stage, job, of};

fn once(key: &str) -> NewJob {
    NewJob { idempotency_key: Some(key.to_owned()), ..job() }
}

pub(crate) async fn the_earlier_job_is_the_answer<H: Harness>(stage: Stage<H>) {
    let first = stage.submit_one(once("k")).await;
    let created_at = stage.job(first).await.created_at;
    stage.pass(Duration::from_secs(5)).await;
    let again = once("k");
    let id = again.id;
    let answer = stage.store.submit(vec![again, once("other")]).await.expect("submitted");
    assert_eq!((answer.jobs[0].id, answer.jobs[0].existing), (first, true));
    assert_eq!((answer.jobs[0].state, answer.jobs[0].created_at), (JobState::Ready, created_at));
    assert!(!answer.jobs[1].existing);
    assert_eq!(answer.readied.len(), 1);
    assert_eq!(answer.readied[0].jobs, 1);
    assert_eq!(stage.store.job(id).await.expect("read"), None);
    assert_eq!(stage.take(9).await.len(), 2);
}

pub(crate) async fn within_one_batch<H: Harness>(stage: Stage<H>) {
    let answer = stage.store.submit(vec![once("k"), once("k"), once("l")]).await.expect("submitted").jobs;
    assert_eq!((answer[1].id, answer[1].existing), (answer[0].id, true));
    assert_eq!(answer.iter().filter(|job| !job.existing).count(), 2);
}

pub(crate) async fn keys_belong_to_their_tenant<H: Harness>(stage: Stage<H>) {
    let of = |tenant| NewJob { idempotency_key: Some("k".to_owned()), ..of(tenant) };
    let ids = stage.submit([of("a"), of("b")]).await;
    assert_ne!(ids[0], ids[1]);
}

pub(crate) async fn a_final_jobs_key_still_counts<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(once("k")).await;
    stage.succeed(fence).await;
    let answer = stage.store.submit(vec![once("k")]).await.expect("submitted").jobs;
    assert_eq!((answer[0].id, answer[0].state, answer[0].existing), (fence.job, JobState::Completed, true));
}

pub(crate) async fn a_deleted_jobs_key_is_free<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(once("k")).await;
    stage.succeed(fence).await;
    stage.pass(Duration::from_secs(1)).await;
    assert_eq!(stage.store.delete_final(stage.now().await, 10).await.expect("deleted"), 1);
    let answer = stage.store.submit(vec![once("k")]).await.expect("submitted").jobs;
    assert!(!answer[0].existing);
}
