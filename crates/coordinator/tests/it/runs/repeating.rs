//! Runs that are repeated.

use std::time::Duration;

use executr_api::{ErrorCode, JobState, Outcome, RerunScope, RunClient, RunState};

use executr_store::Store as _;
use executr_tree::Manifest;

use super::handing_on::{artifact, hand_on};
use super::taking_in::put_tree;
use crate::support::{Plan, Worker, client, events, start, store};

#[tokio::test(start_paused = true)]
async fn what_failed_and_what_comes_after_it_is_done_again() {
    let store = store();
    let coordinator = start(&store).await;
    let client = client(&coordinator);
    let made = put_tree(&client, &[1; 100_000], true).await;
    let jobs = ["make", "test: make", "lint", "report: test lint if always()", "mend: make if failure()", "ship: mend"];
    let plan = Plan::new(&jobs).makes("make", "out").gets("test", "out", "make");
    let first = plan.submit(&coordinator).await;
    let mut worker = Worker::new("w", 4);
    let error = client.rerun(first.id, RerunScope::Failed).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict);
    worker.exchange(&coordinator).await;
    worker.end_named("lint", Outcome::Succeeded);
    hand_on(&mut worker, "make", &[("k", "v")], vec![artifact("out", made)]);
    worker.exchange(&coordinator).await;
    assert_eq!(worker.names(), ["ship", "test"], "what was skipped counts as fine");
    worker.end_named("ship", Outcome::Succeeded);
    worker.end_named("test", Outcome::Failed);
    worker.exchange(&coordinator).await;
    assert_eq!(worker.names(), ["report"]);
    worker.end_all();
    worker.exchange(&coordinator).await;
    assert_eq!(client.run(first.id).await.unwrap().state, RunState::Failed);

    let again = client.rerun(first.id, RerunScope::Failed).await.unwrap();
    assert_eq!((again.rerun_of, again.name.as_str()), (Some(first.id), "w"));
    worker.exchange(&coordinator).await;
    assert_eq!(worker.names(), ["test"]);
    let context = worker.lease("test").run.clone().unwrap();
    assert_eq!((context.run, context.needs["make"].outputs["k"].as_str()), (again.id, "v"));
    assert_eq!(context.artifacts, [artifact("out", made)]);
    // The first run's are deleted: its blobs are the second's as well.
    let runs = store.runs().unwrap();
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(runs.delete_artifacts(store.now().await.unwrap(), 1).await.unwrap(), 1);
    store.delete_blobs(store.now().await.unwrap()).await.unwrap();
    let manifest = store.read_blob(made, 0).await.unwrap().expect("kept");
    for blob in Manifest::parse(&manifest).unwrap().blobs() {
        assert!(store.read_blob(blob, 0).await.unwrap().is_some());
    }
    worker.end_all();
    worker.exchange(&coordinator).await;
    assert_eq!(worker.names(), ["report"]);
    worker.end_all();
    worker.exchange(&coordinator).await;
    assert_eq!(client.run(again.id).await.unwrap().state, RunState::Completed);
    let jobs = client.run_jobs(again.id, 0, None).await.unwrap();
    use JobState::{Completed, Skipped};
    let states: Vec<JobState> = jobs.iter().map(|job| job.state).collect();
    assert_eq!(states, [Completed, Completed, Completed, Completed, Skipped, Completed]);
    let attempts: Vec<u32> = jobs.iter().map(|job| job.attempt).collect();
    assert_eq!(attempts, [0, 1, 0, 1, 0, 0]);
    assert!(events(&coordinator, again.id).await.contains(&"make completed".to_owned()));

    let all = client.rerun(first.id, RerunScope::All).await.unwrap();
    worker.exchange(&coordinator).await;
    assert_eq!(worker.names(), ["lint", "make"]);
    assert_eq!(worker.lease("make").run.as_ref().unwrap().run, all.id);
}
