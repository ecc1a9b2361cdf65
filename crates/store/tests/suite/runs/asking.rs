//! Jobs about which the coordinator is asked.

use executr_api::{NeedResult, Outcome, RunState};
use executr_store::{Decision, Gate, GateVerdict};

use super::{gated, handing_on, run, step};
use crate::suite::Harness;
use crate::suite::stage::Stage;

pub(crate) async fn a_question_waits_for_its_answer<H: Harness>(stage: Stage<H>) {
    let id = stage.start(run([step("a", &[]), gated("b", &[0], Gate::Ask), step("c", &[1])])).await;
    let fence = stage.claim_one().await;
    let progress = stage.follow(fence, Outcome::Failed).await;
    assert_eq!(progress.asked.len(), 1);
    assert_eq!(stage.picture(id).await, "a failed, b waiting, c waiting");
    assert_eq!(stage.take(9).await, []);
    let progress = stage.answer(GateVerdict::Run).await;
    assert_eq!(progress.readied.len(), 1);
    assert!(stage.runs().questions(9).await.expect("read").is_empty());
    assert_eq!(stage.end_next(Outcome::Succeeded).await, "b");
    assert_eq!(stage.picture(id).await, "a failed, b completed, c skipped");
}

pub(crate) async fn after_success_only_then<H: Harness>(stage: Stage<H>) {
    let id = stage.start(run([gated("a", &[], Gate::AskAfterSuccess), gated("b", &[0], Gate::AskAfterSuccess)])).await;
    stage.answer(GateVerdict::Run).await;
    stage.end_next(Outcome::Failed).await;
    assert_eq!(stage.picture(id).await, "a failed, b skipped");
}

pub(crate) async fn no_is_skipped<H: Harness>(stage: Stage<H>) {
    let id = stage.start(run([gated("a", &[], Gate::AskAfterSuccess), step("b", &[0])])).await;
    let progress = stage.answer(GateVerdict::Skip).await;
    assert_eq!((progress.ended.len(), progress.readied.len()), (1, 1));
    assert_eq!(stage.picture(id).await, "a skipped, b ready");
    assert_eq!(stage.story(id).await, "created, a skipped");
}

pub(crate) async fn a_condition_that_fails<H: Harness>(stage: Stage<H>) {
    let id = stage.start(run([gated("a", &[], Gate::Ask), step("b", &[0]), step("c", &[])])).await;
    stage.answer(GateVerdict::Fail("no such name: matrix.os".to_owned())).await;
    assert_eq!(stage.picture(id).await, "a failed, b skipped, c cancelled");
    assert_eq!(stage.why(id, "a").await, "no such name: matrix.os");
    assert_eq!(stage.run_state(id).await, RunState::Failed);
}

pub(crate) async fn an_old_answer_is_passed_over<H: Harness>(stage: Stage<H>) {
    let id = stage.start(run([gated("a", &[], Gate::Ask), step("b", &[])])).await;
    let question = stage.runs().questions(9).await.expect("read").remove(0);
    let decision = |verdict| vec![Decision { job: question.job, verdict }];
    stage.runs().decide(decision(GateVerdict::Run)).await.expect("decided");
    let again = stage.runs().decide(decision(GateVerdict::Skip)).await.expect("decided");
    assert_eq!(again, Default::default());
    let plain = stage.submit_one(crate::suite::stage::job()).await;
    stage.runs().decide(vec![Decision { job: plain, verdict: GateVerdict::Skip }]).await.expect("decided");
    assert_eq!(stage.picture(id).await, "a ready, b ready");
}

pub(crate) async fn what_a_question_tells<H: Harness>(stage: Stage<H>) {
    let jobs = [step("a", &[]), step("b", &[]), step("c", &[0]), gated("d", &[1, 2], Gate::Ask)];
    let id = stage.start(executr_store::NewRun { fail_fast: false, ..run(jobs) }).await;
    let taken = stage.take_all().await;
    stage.follow_result(handing_on(taken["b"], &[("version", "7")], &[])).await;
    stage.finish(taken["a"], Outcome::Failed).await;
    let question = stage.runs().questions(9).await.expect("read").remove(0);
    assert_eq!((question.run, question.index), (id, 3));
    assert_eq!((question.failed_before, question.cancelled_before, question.run_cancelling), (true, false, false));
    assert_eq!(question.needs["b"].result, NeedResult::Success);
    assert_eq!(question.needs["b"].outputs["version"], "7");
    assert_eq!(question.needs["c"].result, NeedResult::Skipped);
    assert_eq!(stage.runs().questions_of(&[question.job]).await.expect("read"), std::slice::from_ref(&question));
    stage.stop(id).await;
    assert!(stage.runs().questions(9).await.expect("read")[0].run_cancelling);
    stage.answer(GateVerdict::Skip).await;
    assert!(stage.runs().questions_of(&[question.job]).await.expect("read").is_empty());
    assert_eq!(stage.run_state(id).await, RunState::Cancelled);
}

pub(crate) async fn a_stopped_run_takes_its_questions_back<H: Harness>(stage: Stage<H>) {
    let jobs = [step("a", &[]), gated("b", &[], Gate::AskAfterSuccess), gated("c", &[], Gate::Ask)];
    let id = stage.start(run(jobs)).await;
    stage.end_next(Outcome::Failed).await;
    assert_eq!(stage.picture(id).await, "a failed, b cancelled, c waiting");
    let first = stage.runs().questions(9).await.expect("read").remove(0);
    assert_eq!(first.index, 2);
    stage.cancel_waiting(first.job).await;
    assert!(stage.runs().questions(9).await.expect("read").is_empty());
    assert_eq!(stage.run_state(id).await, RunState::Failed);
}
