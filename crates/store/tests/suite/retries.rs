//! Failures and what follows.

use std::time::Duration;

use executr_api::{AttemptResult, AttemptStatus, JobState, Outcome};
use executr_store::{FinishAnswer, NewJob};

use super::Harness;
use super::stage::{Stage, constant, job, result};

pub(crate) async fn a_failure_waits_for_its_backoff<H: Harness>(stage: Stage<H>) {
    let first = stage.running(NewJob { max_retries: 2, ..job() }).await;
    let before = stage.now().await;
    let finished = stage.finish(first, Outcome::Failed).await;
    let after = stage.now().await;
    let due = finished.next_at.expect("a next attempt");
    assert_eq!(finished.state, JobState::Scheduled);
    assert!(due >= before.plus(Duration::from_secs(1)) && due <= after.plus(Duration::from_secs(1)));
    let record = stage.job(first.job).await;
    assert_eq!((record.due_at, record.failures, record.attempt), (Some(due), 1, 1));
    assert_eq!(record.error_message.as_deref(), Some("exit code 1"));
    assert_eq!(stage.take(9).await, []);
    stage.pass(Duration::from_secs(1)).await;
    assert_eq!(stage.advance().await.readied[0].jobs, 1);
    let second = stage.claim_one().await;
    assert_eq!((second.job, second.attempt), (first.job, 2));
    let due = stage.finish(second, Outcome::Failed).await.next_at.expect("a next attempt");
    assert!(due >= stage.now().await.plus(Duration::from_secs(1)), "the second wait is twice as long");
}

pub(crate) async fn retries_run_out<H: Harness>(stage: Stage<H>) {
    let id = stage.submit_one(NewJob { max_retries: 1, backoff: constant(0), ..job() }).await;
    for (attempt, state) in [(1, JobState::Ready), (2, JobState::Failed)] {
        let fence = stage.claim_one().await;
        assert_eq!(fence.attempt, attempt);
        assert_eq!(stage.finish(fence, Outcome::Failed).await.state, state);
    }
    let record = stage.job(id).await;
    assert_eq!((record.failures, record.exit_code), (2, Some(1)));
    assert!(record.completed_at.is_some() && record.due_at.is_none());
    assert_eq!(stage.take(9).await, []);
}

pub(crate) async fn a_failure_nothing_can_help_is_final<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(NewJob { max_retries: 5, ..job() }).await;
    let answer = stage.end(AttemptResult { retryable: false, ..result(fence, Outcome::Failed) }).await;
    assert!(matches!(answer, FinishAnswer::Taken(finished) if finished.state == JobState::Failed));
}

pub(crate) async fn success_forgets_the_error<H: Harness>(stage: Stage<H>) {
    let first = stage.running(NewJob { max_retries: 1, backoff: constant(0), ..job() }).await;
    stage.finish(first, Outcome::Failed).await;
    let second = stage.claim_one().await;
    stage.succeed(second).await;
    let record = stage.job(first.job).await;
    assert_eq!((record.error_message, record.exit_code, record.failures), (None, Some(0), 1));
    let attempts = stage.attempts(first.job).await;
    assert_eq!(attempts[0].error_message.as_deref(), Some("exit code 1"));
}

pub(crate) async fn a_cancelled_result_nobody_asked_for_is_a_failure<H: Harness>(stage: Stage<H>) {
    let fence = stage.running(job()).await;
    assert_eq!(stage.finish(fence, Outcome::Cancelled).await.state, JobState::Failed);
    assert_eq!(stage.attempts(fence.job).await[0].status, AttemptStatus::Failed);
}

pub(crate) async fn a_retry_without_wait_is_ready_at_once<H: Harness>(stage: Stage<H>) {
    let first = stage.running(NewJob { max_retries: 1, backoff: constant(0), ..job() }).await;
    let finished = stage.finish(first, Outcome::Failed).await;
    assert_eq!((finished.state, finished.next_at), (JobState::Ready, None));
    assert_eq!(finished.readied.len(), 1);
    assert_eq!(stage.take(9).await, [first.job]);
}
