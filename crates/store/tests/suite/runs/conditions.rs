//! Which jobs run after which ends.

use executr_api::{JobState, Outcome, RunState};
use executr_store::{Gate, NewRun, NewRunJob};

use super::{gated, run, step};
use crate::suite::Harness;
use crate::suite::stage::Stage;

/// A run that goes on after a failure.
fn going_on(jobs: impl IntoIterator<Item = NewRunJob>) -> NewRun {
    NewRun { fail_fast: false, ..run(jobs) }
}

pub(crate) async fn success_skips_after_a_failure<H: Harness>(stage: Stage<H>) {
    let id = stage.start(run([step("a", &[]), step("b", &[0]), step("c", &[1])])).await;
    let fence = stage.claim_one().await;
    let progress = stage.follow(fence, Outcome::Failed).await;
    assert_eq!(progress.ended.iter().map(|(_, state)| *state).collect::<Vec<_>>(), [JobState::Skipped; 2]);
    assert_eq!(stage.picture(id).await, "a failed, b skipped, c skipped");
    assert_eq!(stage.story(id).await, "created, a started, a failed, b skipped, c skipped, ended failed");
    assert!(!stage.why(id, "c").await.is_empty());
    assert_eq!(stage.the_run(id).await.message.as_deref(), Some("job `a` failed"));
}

pub(crate) async fn failure_runs_after_a_failure_however_far<H: Harness>(stage: Stage<H>) {
    let jobs = [step("a", &[]), step("b", &[0]), gated("c", &[1], Gate::Failure), gated("d", &[2], Gate::Failure)];
    let id = stage.start(run(jobs)).await;
    stage.end_next(Outcome::Failed).await;
    assert_eq!(stage.end_next(Outcome::Succeeded).await, "c");
    assert_eq!(stage.end_next(Outcome::Succeeded).await, "d");
    assert_eq!(stage.picture(id).await, "a failed, b skipped, c completed, d completed");
    assert_eq!(stage.run_state(id).await, RunState::Failed);

    let id = stage.start(run([step("a", &[]), gated("b", &[0], Gate::Failure)])).await;
    stage.end_next(Outcome::Succeeded).await;
    assert_eq!(stage.picture(id).await, "a completed, b skipped");
    assert_eq!(stage.run_state(id).await, RunState::Completed);
}

pub(crate) async fn always_runs<H: Harness>(stage: Stage<H>) {
    for outcome in [Outcome::Succeeded, Outcome::Failed] {
        let id = stage.start(run([step("a", &[]), gated("b", &[0], Gate::Always), step("c", &[1])])).await;
        stage.end_next(outcome).await;
        assert_eq!(stage.end_next(Outcome::Succeeded).await, "b");
        // What failed before `b` failed before `c` too.
        let after = if outcome == Outcome::Failed {
            "a failed, b completed, c skipped"
        } else {
            "a completed, b completed, c ready"
        };
        assert_eq!(stage.picture(id).await, after);
        stage.take_all().await;
    }
}

pub(crate) async fn a_skipped_job_counts_as_fine<H: Harness>(stage: Stage<H>) {
    let id = stage.start(run([step("a", &[]), gated("b", &[0], Gate::Failure), step("c", &[1])])).await;
    stage.end_next(Outcome::Succeeded).await;
    assert_eq!(stage.picture(id).await, "a completed, b skipped, c ready");
}

pub(crate) async fn all_skipped_is_completed<H: Harness>(stage: Stage<H>) {
    let id = stage.start(run([gated("a", &[], Gate::Failure), gated("b", &[], Gate::Cancelled)])).await;
    assert_eq!(stage.story(id).await, "created, a skipped, b skipped, ended completed");
}

pub(crate) async fn a_failure_that_may_be_counts_as_success<H: Harness>(stage: Stage<H>) {
    let may_fail = NewRunJob { continue_on_error: true, ..step("a", &[]) };
    let id = stage.start(run([may_fail, step("b", &[0]), gated("c", &[0], Gate::Failure), step("d", &[])])).await;
    let taken = stage.take_all().await;
    stage.finish(taken["a"], Outcome::Failed).await;
    assert_eq!(stage.picture(id).await, "a failed, b ready, c skipped, d running");
    stage.succeed(taken["d"]).await;
    assert_eq!(stage.end_next(Outcome::Succeeded).await, "b");
    let run = stage.the_run(id).await;
    assert_eq!((run.state, run.message), (RunState::Completed, None));
}

pub(crate) async fn a_worker_may_skip<H: Harness>(stage: Stage<H>) {
    let id = stage.start(run([step("a", &[]), step("b", &[0])])).await;
    let fence = stage.claim_one().await;
    assert_eq!(stage.finish(fence, Outcome::Skipped).await.state, JobState::Skipped);
    assert_eq!(stage.picture(id).await, "a skipped, b ready");
}

pub(crate) async fn a_cancelled_job_is_no_success<H: Harness>(stage: Stage<H>) {
    let jobs = [
        step("a", &[]),
        step("b", &[0]),
        gated("c", &[0], Gate::Failure),
        gated("d", &[0], Gate::Always),
        step("e", &[]),
    ];
    let id = stage.start(going_on(jobs)).await;
    let first = stage.runs().run_jobs(id, 0, 1).await.expect("read").remove(0);
    let cancelled = stage.cancel_waiting(first.job.id).await;
    assert_eq!((cancelled.run.ended.len(), cancelled.readied.len()), (2, 1));
    assert_eq!(stage.picture(id).await, "a cancelled, b skipped, c skipped, d ready, e ready");
    for fence in stage.take_all().await.values() {
        stage.succeed(*fence).await;
    }
    assert_eq!(stage.run_state(id).await, RunState::Cancelled);
}

pub(crate) async fn what_fails_behind_a_cancelled_job_counts<H: Harness>(stage: Stage<H>) {
    let jobs = [step("a", &[]), step("b", &[0]), step("c", &[]), gated("d", &[1, 2], Gate::Failure)];
    let id = stage.start(going_on(jobs)).await;
    let taken = stage.take_all().await;
    let waiting = stage.runs().run_jobs(id, 1, 1).await.expect("read").remove(0);
    stage.cancel_waiting(waiting.job.id).await;
    stage.finish(taken["a"], Outcome::Failed).await;
    stage.succeed(taken["c"]).await;
    assert_eq!(stage.picture(id).await, "a failed, b cancelled, c completed, d ready");
}

pub(crate) async fn roots_have_conditions_too<H: Harness>(stage: Stage<H>) {
    let jobs = [
        gated("a", &[], Gate::Failure),
        gated("b", &[], Gate::Always),
        step("c", &[0]),
        gated("d", &[0], Gate::Failure),
    ];
    let answer = stage.submit_run(run(jobs)).await;
    assert_eq!(answer.progress.ended.len(), 2);
    assert_eq!(stage.picture(answer.id).await, "a skipped, b ready, c ready, d skipped");
    assert_eq!(stage.story(answer.id).await, "created, a skipped, d skipped");
}
