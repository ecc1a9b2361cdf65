//! Jobs for later.

use std::time::Duration;

use executr_api::JobState;
use executr_store::NewJob;

use super::Harness;
use super::stage::{Stage, job};

pub(crate) async fn a_scheduled_job_waits_for_its_time<H: Harness>(stage: Stage<H>) {
    let run_at = stage.now().await.plus(Duration::from_secs(10));
    let answer = stage.store.submit(vec![NewJob { run_at: Some(run_at), ..job() }]).await.expect("submitted");
    assert_eq!((answer.jobs[0].state, answer.readied), (JobState::Scheduled, vec![]));
    let id = answer.jobs[0].id;
    assert_eq!(stage.job(id).await.due_at, Some(run_at));
    assert_eq!(stage.advance().await.next_at, Some(run_at));
    assert_eq!(stage.take(9).await, []);
    stage.pass(Duration::from_secs(10)).await;
    assert_eq!(stage.take(9).await, [], "only `advance` moves it");
    let advanced = stage.advance().await;
    assert_eq!((advanced.readied[0].jobs, advanced.next_at), (1, None));
    let record = stage.job(id).await;
    assert_eq!((record.state, record.due_at), (JobState::Ready, None));
    assert_eq!(stage.take(9).await, [id]);
}

pub(crate) async fn a_past_time_is_now<H: Harness>(stage: Stage<H>) {
    let run_at = Some(stage.now().await.minus(Duration::from_secs(10)));
    let id = stage.submit_one(NewJob { run_at, ..job() }).await;
    assert_eq!(stage.job(id).await.due_at, None);
    assert_eq!(stage.take(9).await, [id]);
}

pub(crate) async fn in_the_order_of_their_times<H: Harness>(stage: Stage<H>) {
    let now = stage.now().await;
    let at = |seconds| NewJob { run_at: Some(now.plus(Duration::from_secs(seconds))), ..job() };
    let ids = stage.submit([at(30), at(10), at(20)]).await;
    stage.pass(Duration::from_secs(100)).await;
    for (id, more) in [(ids[1], true), (ids[2], true), (ids[0], false)] {
        let advanced = stage.store.advance(true, 1).await.expect("advanced");
        assert_eq!((advanced.readied[0].jobs, advanced.more), (1, more));
        assert_eq!(stage.state(id).await, JobState::Ready);
    }
    assert_eq!(stage.take(9).await, ids, "once ready the oldest comes first");
}

pub(crate) async fn cancelled_before_it_was_due<H: Harness>(stage: Stage<H>) {
    let run_at = Some(stage.now().await.plus(Duration::from_secs(10)));
    let id = stage.submit_one(NewJob { run_at, ..job() }).await;
    stage.cancel_waiting(id).await;
    stage.pass(Duration::from_secs(10)).await;
    let advanced = stage.advance().await;
    assert_eq!((advanced.readied, advanced.next_at), (vec![], None));
}
