//! A run is asked to stop.

use std::time::Duration;

use executr_api::{JobState, Outcome, RunCancel, RunState};
use executr_store::{CancelAnswer, Gate, NewJob, NewRun, NewRunJob, RunProgress};

use super::{gated, run, step};
use crate::suite::Harness;
use crate::suite::stage::{Stage, constant, keyed};

pub(crate) async fn everything_stops_but_what_wants_to_go_on<H: Harness>(stage: Stage<H>) {
    let jobs = [
        step("a", &[]),
        gated("b", &[], Gate::Always),
        gated("c", &[0], Gate::Cancelled),
        gated("d", &[0], Gate::Failure),
        step("e", &[1]),
    ];
    let id = stage.start(run(jobs)).await;
    let progress = stage.stop(id).await;
    assert_eq!(progress.changed, [id]);
    assert_eq!(progress.ended.iter().map(|(_, state)| *state).collect::<Vec<_>>(), [JobState::Cancelled; 2]);
    assert_eq!(progress.readied.iter().map(|readied| readied.jobs).sum::<u32>(), 1);
    assert_eq!(stage.picture(id).await, "a cancelled, b ready, c ready, d cancelled, e waiting");
    assert_eq!(stage.run_state(id).await, RunState::Cancelling);
    assert_eq!(stage.why(id, "a").await, "enough");
    for fence in stage.take_all().await.values() {
        stage.succeed(*fence).await;
    }
    assert_eq!(stage.picture(id).await, "a cancelled, b completed, c completed, d cancelled, e cancelled");
    let run = stage.the_run(id).await;
    assert_eq!((run.state, run.message.as_deref()), (RunState::Cancelled, Some("enough")));
    let told = "created, cancelling (enough), a cancelled, d cancelled, b started, c started, b completed, e cancelled, c completed, ended cancelled";
    assert_eq!(stage.story(id).await, told);
}

pub(crate) async fn a_running_job_is_asked_to_stop<H: Harness>(stage: Stage<H>) {
    let jobs = [step("a", &[]), gated("b", &[], Gate::Always), gated("c", &[0], Gate::Always), step("d", &[0])];
    let id = stage.start(run(jobs)).await;
    let taken = stage.take_all().await;
    let progress = stage.stop(id).await;
    assert_eq!(progress.cancelling, [(taken["a"], crate::suite::stage::worker("w"))]);
    assert_eq!(stage.picture(id).await, "a cancelling, b running, c waiting, d waiting");
    assert_eq!(stage.finish(taken["a"], Outcome::Failed).await.state, JobState::Cancelled);
    assert_eq!(stage.picture(id).await, "a cancelled, b running, c ready, d cancelled");
    stage.succeed(taken["b"]).await;
    assert_eq!(stage.end_next(Outcome::Failed).await, "c");
    assert_eq!(stage.run_state(id).await, RunState::Cancelled);
}

pub(crate) async fn waiting_jobs_follow<H: Harness>(stage: Stage<H>) {
    let id = stage.start(run([step("a", &[]), step("b", &[0]), step("c", &[1])])).await;
    let progress = stage.stop(id).await;
    assert_eq!(progress.ended.len(), 3);
    assert_eq!(stage.picture(id).await, "a cancelled, b cancelled, c cancelled");
    assert_eq!(
        stage.story(id).await,
        "created, cancelling (enough), a cancelled, b cancelled, c cancelled, ended cancelled"
    );
    assert_eq!(stage.take(9).await, []);
}

pub(crate) async fn twice_and_final<H: Harness>(stage: Stage<H>) {
    let id = stage.start(run([step("a", &[])])).await;
    let fence = stage.claim_one().await;
    stage.stop(id).await;
    let again = stage.runs().cancel_run(id, RunCancel::InOrder, "later").await.expect("asked").expect("there");
    assert_eq!((again.0, again.1.changed.len(), again.1.cancelling.len()), (RunState::Cancelling, 0, 0));
    stage.succeed(fence).await;
    let done = stage.runs().cancel_run(id, RunCancel::InOrder, "later").await.expect("asked").expect("there");
    assert_eq!((done.0, done.1.changed.len()), (RunState::Cancelled, 0));
    assert_eq!(stage.the_run(id).await.message.as_deref(), Some("enough"));
}

pub(crate) async fn at_once_nothing_goes_on<H: Harness>(stage: Stage<H>) {
    let keyed = |job: NewRunJob| NewRunJob { job: keyed("db", 1), ..job };
    let jobs = [
        gated("a", &[], Gate::Always),
        gated("b", &[0], Gate::Always),
        gated("c", &[1], Gate::Cancelled),
        gated("d", &[], Gate::Ask),
        keyed(gated("e", &[], Gate::Always)),
        keyed(gated("f", &[], Gate::Always)),
    ];
    let id = stage.start(run(jobs)).await;
    let fence = stage.claim_one().await;
    assert_eq!(stage.picture(id).await, "a running, b waiting, c waiting, d waiting, e ready, f blocked");
    let progress = stage.stop_so(id, RunCancel::AtOnce).await;
    assert_eq!(progress.at_once, [(fence, crate::suite::stage::worker("w"))]);
    assert_eq!((progress.cancelling.len(), progress.ended.len()), (0, 5));
    let rest = "b cancelled, c cancelled, d cancelled, e cancelled, f cancelled";
    assert_eq!(stage.picture(id).await, format!("a cancelling, {rest}"));
    assert_eq!(stage.why(id, "c").await, "enough");
    assert!(stage.runs().questions(9).await.expect("read").is_empty(), "nobody is asked about what is over");
    assert_eq!(stage.finish(fence, Outcome::Failed).await.state, JobState::Cancelled);
    assert_eq!(stage.picture(id).await, format!("a cancelled, {rest}"));
    let told = "created, a started, cancelling (enough), b cancelled, c cancelled, d cancelled, e cancelled, f cancelled, \
                a cancelled, ended cancelled";
    assert_eq!(stage.story(id).await, told);
}

pub(crate) async fn at_once_after_in_order<H: Harness>(stage: Stage<H>) {
    let jobs = [step("a", &[]), gated("b", &[], Gate::Always), gated("c", &[0], Gate::Always)];
    let id = stage.start(run(jobs)).await;
    let taken = stage.take_all().await;
    stage.stop(id).await;
    assert_eq!(stage.picture(id).await, "a cancelling, b running, c waiting");
    let answer = stage.runs().cancel_run(id, RunCancel::AtOnce, "now").await.expect("asked").expect("there");
    assert_eq!((answer.0, answer.1.at_once.len(), answer.1.ended.len()), (RunState::Cancelling, 2, 1));
    assert_eq!(stage.picture(id).await, "a cancelling, b cancelling, c cancelled");
    // Whoever asks again has their workers told again.
    assert_eq!(stage.stop_so(id, RunCancel::AtOnce).await.at_once.len(), 2);
    stage.succeed(taken["b"]).await;
    stage.finish(taken["a"], Outcome::Cancelled).await;
    assert_eq!(stage.picture(id).await, "a cancelled, b completed, c cancelled");
    let run = stage.the_run(id).await;
    assert_eq!((run.state, run.message.as_deref()), (RunState::Cancelled, Some("enough")));
    assert_eq!(stage.why(id, "b").await, "", "it ended well before it was stopped");
    assert_eq!(stage.stop_so(id, RunCancel::AtOnce).await, RunProgress::default(), "what is over stays as it is");
}

pub(crate) async fn the_time_is_over<H: Harness>(stage: Stage<H>) {
    let short = NewRun { timeout: Some(Duration::from_secs(60)), ..run([step("a", &[]), step("b", &[0])]) };
    let id = stage.start(short).await;
    let deadline = stage.the_run(id).await.deadline.expect("a deadline");
    assert_eq!(stage.advance().await.next_at, Some(deadline));
    stage.pass(Duration::from_secs(61)).await;
    let advanced = stage.advance().await;
    assert_eq!((advanced.run.changed, advanced.run.ended.len(), advanced.next_at), (vec![id], 2, None));
    let run = stage.the_run(id).await;
    assert_eq!(run.message.as_deref(), Some("it took longer than its timeout of 1m"));
    assert_eq!(run.state, RunState::Cancelled);
}

pub(crate) async fn a_retry_that_waits_is_cancelled<H: Harness>(stage: Stage<H>) {
    let a = step("a", &[]);
    let a = NewRunJob { job: NewJob { max_retries: 1, backoff: constant(5), ..a.job.clone() }, ..a };
    let id = stage.start(run([a])).await;
    stage.end_next(Outcome::Failed).await;
    assert_eq!(stage.picture(id).await, "a scheduled");
    stage.stop(id).await;
    assert_eq!(stage.picture(id).await, "a cancelled");
    stage.pass(Duration::from_secs(6)).await;
    assert_eq!(stage.advance().await.readied, []);
}

pub(crate) async fn one_job_alone<H: Harness>(stage: Stage<H>) {
    let id = stage.start(NewRun { fail_fast: false, ..run([step("a", &[]), step("b", &[]), step("c", &[0])]) }).await;
    let jobs = stage.runs().run_jobs(id, 0, 9).await.expect("read");
    let taken = stage.take_all().await;
    assert!(matches!(stage.cancel(jobs[0].job.id).await, CancelAnswer::Cancelling { .. }));
    // One that waits for its needs can be cancelled too.
    stage.cancel_waiting(jobs[2].job.id).await;
    assert_eq!(stage.picture(id).await, "a cancelling, b running, c cancelled");
    stage.finish(taken["a"], Outcome::Failed).await;
    stage.succeed(taken["b"]).await;
    assert_eq!(stage.picture(id).await, "a cancelled, b completed, c cancelled");
    assert_eq!(stage.run_state(id).await, RunState::Cancelled);
}
