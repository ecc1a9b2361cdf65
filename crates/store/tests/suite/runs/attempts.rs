//! What attempts bring and tell.

use std::time::Duration;

use executr_api::{NeedResult, Outcome, RunEventKind};
use executr_store::{NewJob, NewRunJob};

use super::{handing_on, run, step};
use crate::suite::Harness;
use crate::suite::stage::{Stage, constant, result, wish};

fn repeated(name: &str, wait: u64) -> NewRunJob {
    let step = step(name, &[]);
    NewRunJob { job: NewJob { max_retries: 2, backoff: constant(wait), ..step.job.clone() }, ..step }
}

pub(crate) async fn needs_come_with_the_lease<H: Harness>(stage: Stage<H>) {
    let may_fail = NewRunJob { continue_on_error: true, ..step("b", &[]) };
    let id = stage.start(run([step("a", &[]), may_fail, step("c", &[0, 1])])).await;
    let taken = stage.take_all().await;
    stage.follow_result(handing_on(taken["a"], &[("version", "7"), ("tag", "")], &[])).await;
    stage.finish(taken["b"], Outcome::Failed).await;
    let context = stage.claim(1).await.remove(0).run.expect("of a run");
    assert_eq!(context.run, id);
    assert_eq!(context.needs.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((context.needs["a"].result, context.needs["b"].result), (NeedResult::Success, NeedResult::Failure));
    assert_eq!(context.needs["a"].outputs["version"], "7");
    assert_eq!((context.artifacts.len(), context.workspace), (0, None));
    let plain = stage.submit_one(crate::suite::stage::job()).await;
    let claimed = stage.claim(1).await.remove(0);
    assert_eq!((claimed.fence.job, claimed.run), (plain, None));
}

pub(crate) async fn retries_are_told<H: Harness>(stage: Stage<H>) {
    let id = stage.start(run([repeated("a", 5)])).await;
    stage.end_next(Outcome::Failed).await;
    stage.pass(Duration::from_secs(6)).await;
    stage.advance().await;
    stage.end_next(Outcome::Succeeded).await;
    let told = "created, a started, a retrying after 1 (exit code 1), a started 2, a completed, ended completed";
    assert_eq!(stage.story(id).await, told);
}

pub(crate) async fn a_lease_given_back_is_told<H: Harness>(stage: Stage<H>) {
    let id = stage.start(run([step("a", &[])])).await;
    let fence = stage.claim_one().await;
    stage.give_back(fence).await;
    stage.end_next(Outcome::Succeeded).await;
    let told = "created, a started, a retrying after 1 (), a started 2, a completed, ended completed";
    assert_eq!(stage.story(id).await, told);
}

pub(crate) async fn a_lost_lease_is_told<H: Harness>(stage: Stage<H>) {
    let id = stage.start(run([step("a", &[])])).await;
    let lost = stage.claim_one().await;
    stage.lose_leases().await;
    assert_eq!(stage.story(id).await, "created, a started");
    let answer = stage.store.claim(vec![wish("v", 1)]).await.expect("claimed").remove(0);
    assert_eq!((answer.revoked.len(), answer.run.changed), (1, vec![id]));
    assert!(matches!(stage.end(result(lost, Outcome::Failed)).await, executr_store::FinishAnswer::LeaseLost));
    assert_eq!(stage.story(id).await, "created, a started, a retrying after 1 (its lease ran out), a started 2");
}

pub(crate) async fn a_story_in_order<H: Harness>(stage: Stage<H>) {
    let id = stage.start(run([step("a", &[]), repeated("b", 0)])).await;
    let taken = stage.take_all().await;
    let finishes = [result(taken["b"], Outcome::Failed), result(taken["a"], Outcome::Succeeded)];
    stage.store.finish(finishes.map(|result| executr_store::Finish { result }).to_vec()).await.expect("finished");
    stage.end_next(Outcome::Succeeded).await;
    let told = "created, a started, b started, b retrying after 1 (exit code 1), a completed, b started 2, b completed, ended completed";
    assert_eq!(stage.story(id).await, told);
    let events = stage.runs().events(id, 3, 2).await.expect("read");
    assert_eq!(events.iter().map(|event| event.number).collect::<Vec<_>>(), [4, 5]);
    assert!(events[0].at <= events[1].at);
    let ended = RunEventKind::JobEnded {
        job: "a".to_owned(),
        state: executr_api::JobState::Completed,
        attempt: 1,
        exit_code: Some(0),
        message: None,
    };
    assert_eq!(events[1].kind, ended);
    let started = &stage.runs().events(id, 1, 1).await.expect("read")[0].kind;
    let worker = crate::suite::stage::worker("w");
    assert_eq!(*started, RunEventKind::JobStarted { job: "a".to_owned(), attempt: 1, worker });
}
