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
    let decision = |verdict| vec![Decision { job: question.job, run_cancelling: false, verdict }];
    stage.runs().decide(decision(GateVerdict::Run)).await.expect("decided");
    let again = stage.runs().decide(decision(GateVerdict::Skip)).await.expect("decided");
    assert_eq!(again, Default::default());
    let plain = stage.submit_one(crate::suite::stage::job()).await;
    stage
        .runs()
        .decide(vec![Decision { job: plain, run_cancelling: false, verdict: GateVerdict::Skip }])
        .await
        .expect("decided");
    assert_eq!(stage.picture(id).await, "a ready, b ready");
}

pub(crate) async fn an_answer_from_before_a_cancel_is_asked_again<H: Harness>(stage: Stage<H>) {
    let id = stage.start(run([gated("a", &[], Gate::Ask)])).await;
    let question = stage.runs().questions(9).await.expect("read").remove(0);
    stage.stop(id).await;
    let decision = |run_cancelling| vec![Decision { job: question.job, run_cancelling, verdict: GateVerdict::Run }];
    let progress = stage.runs().decide(decision(question.run_cancelling)).await.expect("decided");
    assert_eq!((progress.asked, progress.readied.len()), (vec![question.job], 0));
    assert_eq!(stage.picture(id).await, "a waiting");
    let progress = stage.runs().decide(decision(true)).await.expect("decided");
    assert_eq!((progress.asked.len(), progress.readied.len()), (0, 1));
    assert_eq!(stage.picture(id).await, "a ready");
}

pub(crate) async fn asked_unless_cancelled<H: Harness>(stage: Stage<H>) {
    let gate = Gate::AskUnlessCancelled;
    let jobs = [step("a", &[]), step("b", &[]), gated("c", &[0], gate), gated("d", &[0], gate), gated("e", &[1], gate)];
    let id = stage.start(run(jobs)).await;
    let taken = stage.take_all().await;
    let progress = stage.follow(taken["a"], Outcome::Failed).await;
    assert_eq!(progress.asked.len(), 2, "a failure elsewhere takes no question back");
    let question = stage.runs().questions(9).await.expect("read").remove(0);
    let decision = Decision { job: question.job, run_cancelling: false, verdict: GateVerdict::Run };
    stage.runs().decide(vec![decision]).await.expect("decided");
    stage.claim_one().await;
    assert_eq!(stage.picture(id).await, "a failed, b running, c running, d waiting, e waiting");
    let progress = stage.stop(id).await;
    assert_eq!(progress.cancelling.len(), 2);
    assert_eq!(stage.picture(id).await, "a failed, b cancelling, c cancelling, d cancelled, e waiting");
    stage.follow(taken["b"], Outcome::Succeeded).await;
    assert_eq!(stage.picture(id).await, "a failed, b completed, c cancelling, d cancelled, e cancelled");
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
