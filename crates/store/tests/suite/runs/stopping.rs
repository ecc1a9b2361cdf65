//! The first failure stops what has not started.

use executr_api::{AttemptResult, JobState, Outcome, RunState};
use executr_store::{Gate, NewJob, NewRun, NewRunJob};

use super::{gated, run, step};
use crate::suite::Harness;
use crate::suite::stage::{LEASE, Stage, constant, result};

pub(crate) async fn the_first_failure_stops_what_has_not_started<H: Harness>(stage: Stage<H>) {
    let id = stage.start(run([step("a", &[]), step("b", &[]), step("c", &[1]), gated("d", &[], Gate::Always)])).await;
    let fence = stage.claim_one().await;
    let progress = stage.follow(fence, Outcome::Failed).await;
    assert_eq!(
        progress.ended.iter().map(|(_, state)| *state).collect::<Vec<_>>(),
        [JobState::Cancelled, JobState::Skipped]
    );
    assert_eq!(stage.picture(id).await, "a failed, b cancelled, c skipped, d ready");
    assert_eq!(stage.why(id, "b").await, "not started: job `a` failed");
    assert_eq!(stage.end_next(Outcome::Succeeded).await, "d");
    let told = "created, a started, a failed, b cancelled, c skipped, d started, d completed, ended failed";
    assert_eq!(stage.story(id).await, told);
}

pub(crate) async fn what_was_handed_out_goes_on<H: Harness>(stage: Stage<H>) {
    let again = |name: &str| {
        let step = step(name, &[]);
        NewRunJob { job: NewJob { max_retries: 1, backoff: constant(0), ..step.job.clone() }, ..step }
    };
    let id = stage.start(run([step("a", &[]), again("b"), step("c", &[]), step("d", &[])])).await;
    let taken = stage.take_all().await;
    stage.give_back(taken["c"]).await;
    let progress = stage.follow(taken["a"], Outcome::Failed).await;
    assert!(progress.ended.is_empty() && progress.cancelling.is_empty());
    // Its attempt is repeated, and the one given back is handed out again.
    stage.finish(taken["b"], Outcome::Failed).await;
    assert_eq!(stage.picture(id).await, "a failed, b ready, c ready, d running");
    for fence in stage.take_all().await.values().chain([&taken["d"]]) {
        stage.succeed(*fence).await;
    }
    assert_eq!(stage.run_state(id).await, RunState::Failed);
}

pub(crate) async fn waiting_jobs_when_their_turn_comes<H: Harness>(stage: Stage<H>) {
    let jobs = [step("a", &[]), step("b", &[]), step("c", &[1]), step("d", &[2]), step("e", &[0, 1])];
    let id = stage.start(run(jobs)).await;
    let taken = stage.take_all().await;
    stage.finish(taken["a"], Outcome::Failed).await;
    assert_eq!(stage.picture(id).await, "a failed, b running, c waiting, d waiting, e waiting");
    stage.finish(taken["b"], Outcome::Succeeded).await;
    assert_eq!(stage.picture(id).await, "a failed, b completed, c cancelled, d skipped, e skipped");
    assert_eq!(stage.run_state(id).await, RunState::Failed);
}

pub(crate) async fn without_fail_fast_the_others_go_on<H: Harness>(stage: Stage<H>) {
    let jobs = [step("a", &[]), step("b", &[]), step("c", &[1]), step("d", &[0])];
    let id = stage.start(NewRun { fail_fast: false, ..run(jobs) }).await;
    let fence = stage.claim_one().await;
    stage.finish(fence, Outcome::Failed).await;
    assert_eq!(stage.picture(id).await, "a failed, b ready, c waiting, d skipped");
    stage.end_next(Outcome::Succeeded).await;
    stage.end_next(Outcome::Failed).await;
    let run = stage.the_run(id).await;
    assert_eq!((run.state, run.message.as_deref()), (RunState::Failed, Some("job `a` failed")));
}

pub(crate) async fn a_failure_of_the_run_is_taken_by_nobody<H: Harness>(stage: Stage<H>) {
    let fault = |fence| AttemptResult { fails_run: true, retryable: false, ..result(fence, Outcome::Failed) };
    let taking = |name| NewRunJob { continue_on_error: true, ..step(name, &[]) };
    let after = [step("d", &[0]), gated("e", &[0], Gate::Always), gated("f", &[0], Gate::Failure)];
    let jobs = [taking("a"), step("b", &[]), step("c", &[])].into_iter().chain(after);
    let id = stage.start(NewRun { fail_fast: false, ..run(jobs) }).await;
    // A failure before it stops nothing.
    let first = stage.claim(2).await;
    stage.finish(first[1].fence, Outcome::Failed).await;
    assert_eq!(stage.picture(id).await, "a running, b failed, c ready, d waiting, e waiting, f waiting");
    let progress = stage.follow_result(fault(first[0].fence)).await;
    assert_eq!(progress.ended.len(), 2);
    assert_eq!(stage.picture(id).await, "a failed, b failed, c cancelled, d skipped, e ready, f ready");
    for fence in stage.take_all().await.values() {
        stage.succeed(*fence).await;
    }
    let run = stage.the_run(id).await;
    assert_eq!((run.state, run.message.as_deref()), (RunState::Failed, Some("job `b` failed")));
    assert!(run.fail_fast);
}

pub(crate) async fn only_a_failure_can_be_the_runs<H: Harness>(stage: Stage<H>) {
    let jobs = [step("a", &[]), step("b", &[0])];
    let id = stage.start(NewRun { fail_fast: false, ..run(jobs) }).await;
    let fence = stage.claim_one().await;
    stage.follow_result(AttemptResult { fails_run: true, ..result(fence, Outcome::Succeeded) }).await;
    assert_eq!(stage.picture(id).await, "a completed, b ready");
    assert!(!stage.the_run(id).await.fail_fast);
}

pub(crate) async fn a_retry_is_no_failure<H: Harness>(stage: Stage<H>) {
    let a = step("a", &[]);
    let a = NewRunJob { job: NewJob { max_retries: 1, backoff: constant(5), ..a.job.clone() }, ..a };
    let id = stage.start(run([a, step("b", &[])])).await;
    let fence = stage.claim_one().await;
    let progress = stage.follow(fence, Outcome::Failed).await;
    assert_eq!((progress.changed, progress.ended), (vec![id], vec![]));
    assert_eq!(stage.picture(id).await, "a scheduled, b ready");
    stage.pass(std::time::Duration::from_secs(6)).await;
    stage.advance().await;
    for fence in stage.take_all().await.values() {
        stage.succeed(*fence).await;
    }
    assert_eq!(stage.run_state(id).await, RunState::Completed);
}

pub(crate) async fn a_lost_job_stops_its_run<H: Harness>(stage: Stage<H>) {
    let id = stage.start(run([step("a", &[]), step("b", &[]), step("c", &[0])])).await;
    for _ in 0..3 {
        assert_eq!(stage.claim(1).await.len(), 1);
        stage.lose_leases().await;
    }
    stage.pass(LEASE).await;
    let advanced = stage.advance().await;
    assert_eq!(advanced.ended.len(), 1);
    assert_eq!(advanced.run.changed, [id]);
    assert_eq!(
        advanced.run.ended.iter().map(|(_, state)| *state).collect::<Vec<_>>(),
        [JobState::Cancelled, JobState::Skipped]
    );
    assert_eq!(stage.picture(id).await, "a failed, b cancelled, c skipped");
    assert_eq!(stage.run_state(id).await, RunState::Failed);
}
