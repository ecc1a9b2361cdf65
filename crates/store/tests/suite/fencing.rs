//! Results are taken only under the live lease, and once.

use executr_api::{AttemptStatus, Fence, JobState, Outcome};
use executr_spec::{JobId, LeaseId};
use executr_store::{Finish, FinishAnswer, RenewAnswer};
use uuid::Uuid;

use super::Harness;
use super::stage::{Stage, job, result};

pub(crate) async fn a_result_is_taken_once<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(job()).await;
    stage.succeed(fence).await;
    let before = stage.job(fence.job).await;
    assert_eq!(stage.end(result(fence, Outcome::Failed)).await, FinishAnswer::Before(JobState::Completed));
    assert_eq!(stage.job(fence.job).await, before);
    assert_eq!(stage.attempts(fence.job).await.len(), 1);
}

pub(crate) async fn another_lease_id_is_refused<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(job()).await;
    let forged = Fence { lease: LeaseId(Uuid::new_v4()), ..fence };
    assert_eq!(stage.end(result(forged, Outcome::Succeeded)).await, FinishAnswer::LeaseLost);
    assert_eq!(stage.renew(forged).await, RenewAnswer::LeaseLost);
    assert_eq!(stage.give_back(forged).await, FinishAnswer::LeaseLost);
    assert_eq!(stage.state(fence.job).await, JobState::Running);
}

pub(crate) async fn another_attempt_is_refused<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(job()).await;
    for attempt in [0, 2, u32::MAX] {
        let other = Fence { attempt, ..fence };
        assert_eq!(stage.end(result(other, Outcome::Succeeded)).await, FinishAnswer::LeaseLost);
    }
    stage.succeed(fence).await;
}

pub(crate) async fn a_zombies_result_changes_nothing<H: Harness>(stage: Stage<H>) {
    let zombie = stage.running(job()).await;
    stage.lose_leases().await;
    let holder = stage.claim_one().await;
    assert_eq!(holder.job, zombie.job);
    let before = stage.job(zombie.job).await;
    assert_eq!(stage.end(result(zombie, Outcome::Failed)).await, FinishAnswer::LeaseLost);
    assert_eq!(stage.renew(zombie).await, RenewAnswer::LeaseLost);
    assert_eq!(stage.give_back(zombie).await, FinishAnswer::LeaseLost);
    assert_eq!(stage.job(zombie.job).await, before);
    stage.succeed(holder).await;
    assert_eq!(stage.end(result(zombie, Outcome::Failed)).await, FinishAnswer::LeaseLost);
    let statuses: Vec<_> = stage.attempts(zombie.job).await.into_iter().map(|attempt| attempt.status).collect();
    assert_eq!(statuses, [AttemptStatus::Lost, AttemptStatus::Completed]);
}

pub(crate) async fn unknown_jobs_are_refused<H: Harness>(stage: Stage<H>) {
    let fence = Fence { job: JobId(Uuid::new_v4()), attempt: 1, lease: LeaseId(Uuid::new_v4()) };
    assert_eq!(stage.end(result(fence, Outcome::Succeeded)).await, FinishAnswer::LeaseLost);
    assert_eq!(stage.renew(fence).await, RenewAnswer::LeaseLost);
    assert_eq!(stage.give_back(fence).await, FinishAnswer::LeaseLost);
}

pub(crate) async fn twice_in_one_batch<H: Harness>(stage: Stage<H>) {
    let one = stage.running(job()).await;
    let two = stage.running(job()).await;
    let results = [one, one, two].map(|fence| Finish { result: result(fence, Outcome::Succeeded) });
    let answers = stage.store.finish(results.to_vec()).await.expect("finished");
    assert!(matches!(answers[0], FinishAnswer::Taken(_)));
    assert_eq!(answers[1], FinishAnswer::Before(JobState::Completed));
    assert!(matches!(answers[2], FinishAnswer::Taken(_)));
}

pub(crate) async fn renewing_after_the_end_is_refused<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(job()).await;
    stage.succeed(fence).await;
    assert_eq!(stage.renew(fence).await, RenewAnswer::LeaseLost);
}
