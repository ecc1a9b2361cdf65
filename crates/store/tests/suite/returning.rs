//! Leases given back unstarted.

use executr_api::{AttemptStatus, JobState, Outcome};
use executr_store::{FinishAnswer, NewJob};

use super::Harness;
use super::stage::{Stage, job, result};

pub(crate) async fn the_job_is_ready_again<H: Harness>(stage: Stage<H>) {
    let first = stage.running(job()).await;
    let FinishAnswer::Taken(finished) = stage.give_back(first).await else { panic!("not taken") };
    assert_eq!((finished.state, finished.readied.len(), finished.next_at), (JobState::Ready, 1, None));
    assert_eq!(stage.store.lease_of(first.job).await.expect("read"), None);
    let second = stage.claim_one().await;
    assert_eq!((second.job, second.attempt), (first.job, 2));
}

pub(crate) async fn nothing_is_counted<H: Harness>(stage: Stage<H>) {
    let first = stage.running(NewJob { max_retries: 1, ..job() }).await;
    stage.give_back(first).await;
    let record = stage.job(first.job).await;
    assert_eq!((record.failures, record.lost_leases, record.attempt), (0, 0, 1));
    let attempts = stage.attempts(first.job).await;
    assert_eq!(attempts[0].status, AttemptStatus::Returned);
    assert!(attempts[0].ended_at.is_some());
}

pub(crate) async fn twice_is_told<H: Harness>(stage: Stage<H>) {
    let first = stage.running(job()).await;
    stage.give_back(first).await;
    assert_eq!(stage.give_back(first).await, FinishAnswer::Before(JobState::Ready));
    assert_eq!(stage.end(result(first, Outcome::Succeeded)).await, FinishAnswer::LeaseLost);
    let second = stage.claim_one().await;
    assert_eq!(stage.give_back(first).await, FinishAnswer::Before(JobState::Running));
    stage.succeed(second).await;
}

pub(crate) async fn a_finished_attempt_cant_be_given_back<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(job()).await;
    stage.finish(fence, Outcome::Failed).await;
    assert_eq!(stage.give_back(fence).await, FinishAnswer::LeaseLost);
    assert_eq!(stage.state(fence.job).await, JobState::Failed);
}

pub(crate) async fn a_cancelling_job_is_cancelled<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(job()).await;
    stage.cancel(fence.job).await;
    let FinishAnswer::Taken(finished) = stage.give_back(fence).await else { panic!("not taken") };
    assert_eq!((finished.state, finished.readied.len()), (JobState::Cancelled, 0));
    assert_eq!(stage.attempts(fence.job).await[0].status, AttemptStatus::Returned);
    assert_eq!(stage.take(9).await, []);
}

pub(crate) async fn a_reclaimable_job_stays_ready<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(job()).await;
    stage.lose_leases().await;
    stage.give_back(fence).await;
    let record = stage.job(fence.job).await;
    assert_eq!((record.state, record.reclaimable), (JobState::Ready, false));
    assert_eq!(stage.take(9).await, [fence.job], "it stands in the ready set once");
}
