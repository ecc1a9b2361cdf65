//! Cancelling in every state.

use std::time::Duration;

use executr_api::{AttemptStatus, JobState, Outcome};
use executr_spec::JobId;
use executr_store::{CancelAnswer, FinishAnswer, NewJob, RenewAnswer};
use uuid::Uuid;

use super::Harness;
use super::stage::{Stage, job, keyed, result, worker};

pub(crate) async fn waiting_jobs_at_once<H: Harness>(stage: Stage<H>) {
    let run_at = Some(stage.now().await.plus(Duration::from_secs(10)));
    let ids = stage.submit([keyed("k", 1), keyed("k", 1), NewJob { run_at, ..job() }]).await;
    for id in [ids[1], ids[0], ids[2]] {
        stage.cancel_waiting(id).await;
        let record = stage.job(id).await;
        assert_eq!((record.state, record.error_message.as_deref()), (JobState::Cancelled, Some("not wanted")));
        assert!(record.completed_at.is_some() && record.due_at.is_none());
        assert_eq!(stage.attempts(id).await, []);
    }
    assert_eq!(stage.take(9).await, []);
}

pub(crate) async fn a_running_job_is_asked_to_stop<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(job()).await;
    assert_eq!(stage.cancel(fence.job).await, CancelAnswer::Cancelling { fence, worker: worker("w") });
    assert_eq!(stage.state(fence.job).await, JobState::Cancelling);
    assert!(matches!(stage.renew(fence).await, RenewAnswer::Renewed { cancelling: true, .. }));
    assert_eq!(stage.finish(fence, Outcome::Cancelled).await.state, JobState::Cancelled);
    let record = stage.job(fence.job).await;
    assert_eq!((record.error_message.as_deref(), record.failures), (Some("not wanted"), 0));
    assert_eq!(stage.attempts(fence.job).await[0].status, AttemptStatus::Cancelled);
    assert_eq!(stage.end(result(fence, Outcome::Cancelled)).await, FinishAnswer::Before(JobState::Cancelled));
}

pub(crate) async fn success_wins<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(job()).await;
    stage.cancel(fence.job).await;
    stage.succeed(fence).await;
    assert_eq!(stage.job(fence.job).await.error_message, None);
}

pub(crate) async fn a_failure_becomes_cancelled<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(NewJob { max_retries: 3, ..job() }).await;
    stage.cancel(fence.job).await;
    assert_eq!(stage.finish(fence, Outcome::Failed).await.state, JobState::Cancelled);
    let record = stage.job(fence.job).await;
    assert_eq!((record.error_message.as_deref(), record.exit_code), (Some("not wanted"), Some(1)));
}

pub(crate) async fn final_and_unknown_jobs_are_left_alone<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(job()).await;
    stage.succeed(fence).await;
    assert_eq!(stage.cancel(fence.job).await, CancelAnswer::Final(JobState::Completed));
    assert_eq!(stage.cancel(JobId(Uuid::new_v4())).await, CancelAnswer::NotFound);
    let id = stage.submit_one(job()).await;
    let answers = stage.store.cancel(vec![id, id], false, "twice").await.expect("cancelled");
    assert!(matches!(answers[0], CancelAnswer::Cancelled(_)));
    assert_eq!(answers[1], CancelAnswer::Final(JobState::Cancelled));
}

pub(crate) async fn pending_only_leaves_running_jobs_alone<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(job()).await;
    let waiting = stage.submit_one(job()).await;
    let answers = stage.store.cancel(vec![fence.job, waiting], true, "x").await.expect("cancelled");
    assert_eq!(answers[0], CancelAnswer::Running);
    assert!(matches!(answers[1], CancelAnswer::Cancelled(_)));
    assert_eq!(stage.state(fence.job).await, JobState::Running);
    stage.cancel(fence.job).await;
    let answers = stage.store.cancel(vec![fence.job], true, "x").await.expect("cancelled");
    assert_eq!(answers[0], CancelAnswer::Running);
}

pub(crate) async fn the_first_reason_stays<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(job()).await;
    stage.cancel(fence.job).await;
    let again = stage.store.cancel(vec![fence.job], false, "another").await.expect("cancelled");
    assert_eq!(again, [CancelAnswer::Cancelling { fence, worker: worker("w") }]);
    assert_eq!(stage.job(fence.job).await.error_message.as_deref(), Some("not wanted"));
}

pub(crate) async fn a_reclaimable_job_leaves_the_ready_set<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(job()).await;
    stage.lose_leases().await;
    assert_eq!(stage.cancel(fence.job).await, CancelAnswer::Cancelling { fence, worker: worker("w") });
    assert_eq!(stage.take(9).await, []);
    assert!(!stage.job(fence.job).await.reclaimable);
    let advanced = stage.advance().await;
    assert_eq!(advanced.ended, [(fence.job, JobState::Cancelled, fence, worker("w"))]);
}

pub(crate) async fn a_lost_lease_ends_it<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(keyed("k", 1)).await;
    let next = stage.submit_one(keyed("k", 1)).await;
    stage.cancel(fence.job).await;
    assert_eq!(stage.advance().await.ended, []);
    let advanced = stage.lose_leases().await;
    assert_eq!(advanced.ended, [(fence.job, JobState::Cancelled, fence, worker("w"))]);
    let record = stage.job(fence.job).await;
    assert_eq!((record.lost_leases, record.error_message.as_deref()), (1, Some("not wanted")));
    assert_eq!(stage.attempts(fence.job).await[0].status, AttemptStatus::Lost);
    assert_eq!(stage.end(result(fence, Outcome::Succeeded)).await, FinishAnswer::LeaseLost);
    assert_eq!(stage.take(9).await, [next]);
}
