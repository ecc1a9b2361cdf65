//! Retention of runs.

use std::time::Duration;

use executr_api::{JobQuery, Outcome, RunQuery};
use executr_store::NewRun;

use super::{run, step};
use crate::suite::Harness;
use crate::suite::stage::{Stage, job};

pub(crate) async fn whole_and_hidden<H: Harness>(stage: Stage<H>) {
    let keyed = || NewRun { idempotency_key: Some("once".to_owned()), ..run([step("a", &[]), step("b", &[0])]) };
    let id = stage.start(keyed()).await;
    let jobs = stage.runs().run_jobs(id, 0, 9).await.expect("read");
    for _ in 0..2 {
        stage.end_next(Outcome::Succeeded).await;
    }
    stage.pass(Duration::from_secs(10)).await;
    assert_eq!(stage.store.delete_final(stage.now().await, 9).await.expect("deleted"), 1);
    assert_eq!(stage.runs().run(id).await.expect("read"), None);
    assert_eq!(stage.runs().runs(&RunQuery::default(), None).await.expect("listed"), []);
    assert_eq!(stage.runs().events(id, 0, 9).await.expect("read"), []);
    assert_eq!(stage.runs().run_jobs(id, 0, 9).await.expect("read"), []);
    assert_eq!(stage.runs().run_counts().await.expect("counted"), Default::default());
    assert_eq!(stage.store.job(jobs[1].job.id).await.expect("read"), None);
    assert_eq!(stage.store.jobs(&JobQuery::default()).await.expect("listed"), []);
    assert_eq!(stage.store.stats().await.expect("stats").jobs_by_status["completed"], 0);
    assert_eq!(stage.runs().run_of(jobs[0].job.id).await.expect("read"), None);
    assert_eq!(stage.store.delete_final(stage.now().await, 9).await.expect("deleted"), 0);
    // Its key is free again.
    assert!(!stage.submit_run(keyed()).await.existing);
}

pub(crate) async fn only_final_ones<H: Harness>(stage: Stage<H>) {
    let id = stage.start(run([step("a", &[]), step("b", &[0])])).await;
    let plain = stage.submit_one(job()).await;
    for fence in stage.claim(9).await {
        stage.succeed(fence.fence).await;
    }
    let started = stage.now().await;
    stage.pass(Duration::from_secs(10)).await;
    // The plain job goes; the job of the run stays as long as its run.
    assert_eq!(stage.store.delete_final(stage.now().await, 9).await.expect("deleted"), 1);
    assert_eq!(stage.store.job(plain).await.expect("read"), None);
    assert_eq!(stage.picture(id).await, "a completed, b ready");
    stage.end_next(Outcome::Succeeded).await;
    assert_eq!(stage.store.delete_final(started, 9).await.expect("deleted"), 0);
    stage.pass(Duration::from_secs(10)).await;
    assert_eq!(stage.store.delete_final(stage.now().await, 0).await.expect("deleted"), 0);
    assert_eq!(stage.picture(id).await, "a completed, b completed");
    assert_eq!(stage.store.delete_final(stage.now().await, 1).await.expect("deleted"), 1);
}

pub(crate) async fn a_large_run<H: Harness>(stage: Stage<H>) {
    let first = stage.start(run((0..600).map(|at| step(&at.to_string(), &[])))).await;
    let second = stage.start(run([step("a", &[])])).await;
    stage.stop(first).await;
    stage.pass(Duration::from_secs(10)).await;
    assert_eq!(stage.store.delete_final(stage.now().await, 9).await.expect("deleted"), 1);
    assert_eq!(stage.store.jobs(&JobQuery::default()).await.expect("listed").len(), 1);
    assert_eq!(stage.store.stats().await.expect("stats").jobs_by_status["cancelled"], 0);
    assert_eq!(stage.picture(second).await, "a ready");
}
