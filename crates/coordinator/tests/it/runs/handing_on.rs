//! What jobs hand on to those after them.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use executr_api::{Artifact, ArtifactQuery, AttemptResult, Client, JobState, NeedResult, Outcome, RunClient, RunState};
use executr_spec::Digest;
use executr_tree::Manifest;
use executr_tree::{Entry, FileEntry, Kind, Place};
use tokio::time::sleep;

use super::taking_in::put_tree;
use crate::support::{LEASE, Plan, Worker, client, result, start, store};

/// A tree with one file, too large for a pack, and its blobs.
pub(super) fn tree(content: &[u8]) -> (Manifest, Vec<(Digest, Bytes)>) {
    let digest = Digest::of(content);
    let file = FileEntry { mode: 0o644, size: content.len() as u64, digest, place: Place::Own };
    let manifest = Manifest::new(vec![Entry { path: PathBuf::from("file"), kind: Kind::File(file) }], Vec::new());
    let manifest = manifest.unwrap();
    assert_eq!(manifest.blobs(), [digest]);
    (manifest, vec![(digest, Bytes::copy_from_slice(content))])
}

pub(super) fn artifact(name: &str, tree: Digest) -> Artifact {
    Artifact { name: name.to_owned(), tree, size: 100_000, files: 1 }
}

/// Ends a job that hands this on.
pub(super) fn hand_on(worker: &mut Worker, name: &str, outputs: &[(&str, &str)], artifacts: Vec<Artifact>) {
    let fence = worker.lease(name).fence;
    worker.end(fence, Outcome::Succeeded);
    let result: &mut AttemptResult = worker.finished.last_mut().unwrap();
    result.outputs = outputs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    result.artifacts = artifacts;
}

#[tokio::test(start_paused = true)]
async fn outputs_and_artifacts_come_with_the_leases_of_those_who_asked() {
    let store = store();
    let coordinator = start(&store).await;
    let client = client(&coordinator);
    let made = put_tree(&client, &[1; 100_000], true).await;
    let jobs = ["make", "get: make", "look: make", "skip: make if failure()", "last: skip get if always()"];
    let run = Plan::new(&jobs).makes("make", "out").gets("get", "out", "make").submit(&coordinator).await;
    let mut worker = Worker::new("w", 4);
    worker.exchange(&coordinator).await;
    let context = worker.lease("make").run.clone().unwrap();
    assert_eq!((context.run, context.needs.len(), context.artifacts.len()), (run.id, 0, 0));
    // What it says of the size is not believed.
    let claimed = Artifact { size: 1, files: 7, ..artifact("out", made) };
    hand_on(&mut worker, "make", &[("version", "1.2")], vec![claimed]);
    worker.exchange(&coordinator).await;
    assert_eq!(worker.names(), ["get", "look"]);
    let get = worker.lease("get").run.clone().unwrap();
    assert_eq!(get.artifacts, [artifact("out", made)]);
    assert_eq!(get.needs["make"].outputs["version"], "1.2");
    let look = worker.lease("look").run.clone().unwrap();
    assert_eq!((look.needs.len(), look.artifacts.len()), (1, 0), "it has no input");
    worker.end_all();
    worker.exchange(&coordinator).await;
    let last = worker.lease("last").run.clone().unwrap();
    assert_eq!(last.needs["skip"].result, NeedResult::Skipped);
    assert_eq!(last.needs["get"].result, NeedResult::Success);
    worker.end_all();
    worker.exchange(&coordinator).await;

    let jobs = client.run_jobs(run.id, 0, None).await.unwrap();
    assert_eq!(jobs[0].outputs["version"], "1.2");
    assert_eq!(jobs[0].artifacts, [artifact("out", made)]);
    let listed = client.artifacts(ArtifactQuery::default()).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].run, listed[0].workflow.as_str(), listed[0].job.as_str()), (run.id, "w", "make"));
    assert_eq!(client.artifacts(ArtifactQuery { run: Some(run.id), limit: None }).await.unwrap(), listed);
}

#[tokio::test(start_paused = true)]
async fn a_lease_whose_answer_was_lost_comes_again_with_all_it_had() {
    let store = store();
    let coordinator = start(&store).await;
    Plan::new(&["a", "b: a"]).submit(&coordinator).await;
    let mut worker = Worker::new("w", 1);
    worker.exchange(&coordinator).await;
    hand_on(&mut worker, "a", &[("k", "v")], Vec::new());
    worker.exchange_unheard(&coordinator).await;
    worker.finished.clear();
    let unheard = worker.exchange_unheard(&coordinator).await;
    assert_eq!(unheard.leases[0].run.as_ref().unwrap().needs["a"].outputs["k"], "v");
    drop(coordinator);
    let coordinator = start(&store).await;
    let orders = worker.exchange(&coordinator).await;
    assert_eq!(orders.leases, unheard.leases);
    // One that was told once is told again, after the next coordinator took it for known.
    drop(coordinator);
    let coordinator = start(&store).await;
    assert!(worker.exchange(&coordinator).await.leases.is_empty());
    let forgotten = std::mem::take(&mut worker.held);
    worker.wait = LEASE / 10;
    let orders = worker.exchange(&coordinator).await;
    assert_eq!((orders.leases[0].fence, &orders.leases), (forgotten[0], &unheard.leases));
}

#[tokio::test(start_paused = true)]
async fn a_result_that_hands_on_what_cannot_be_taken_fails_its_job() {
    let store = store();
    let coordinator = start(&store).await;
    let client = client(&coordinator);
    let half = put_tree(&client, &[2; 100_000], false).await;
    let whole = put_tree(&client, &[3; 100_000], true).await;
    let large = "x".repeat(64 << 10);
    type Handed<'a> = (Vec<(&'a str, &'a str)>, Vec<Artifact>, &'a str);
    let cases: Vec<Handed<'_>> = vec![
        (vec![("k", &large)], vec![], "at most 65536"),
        (vec![], vec![artifact("out", half)], "were not uploaded"),
        (vec![], vec![artifact("out", Digest::of(b"no manifest"))], "has no tree"),
        (vec![], vec![artifact("other", whole)], "none of the job's artifacts"),
        (vec![], vec![artifact("out", whole), artifact("out", whole)], "or twice"),
    ];
    for (number, (outputs, artifacts, told)) in cases.into_iter().enumerate() {
        let run = Plan::new(&["a", "b: a"]).makes("a", "out").with("a", |job, _| job.spec.max_retries = 5);
        let run = run.submit(&coordinator).await;
        let mut worker = Worker::new(&format!("w{number}"), 1);
        worker.exchange(&coordinator).await;
        hand_on(&mut worker, "a", &outputs, artifacts);
        worker.exchange(&coordinator).await;
        let run = client.run(run.id).await.unwrap();
        assert_eq!(run.state, RunState::Failed, "{told}");
        let jobs = client.run_jobs(run.id, 0, None).await.unwrap();
        let message = jobs[0].error_message.clone().unwrap();
        assert!(jobs[0].state == JobState::Failed && message.contains(told), "{message}");
        assert!(jobs[0].outputs.is_empty() && jobs[0].artifacts.is_empty());
    }
    // A failure stays the failure it was, and hands nothing on.
    let run = Plan::new(&["a"]).submit(&coordinator).await;
    let mut worker = Worker::new("w", 1);
    worker.exchange(&coordinator).await;
    let fence = worker.lease("a").fence;
    worker.held.clear();
    let mut failed = result(fence, Outcome::Failed);
    failed.error_message = Some("the step failed".to_owned());
    failed.artifacts = vec![artifact("out", half)];
    worker.finished.push(failed);
    worker.exchange(&coordinator).await;
    let jobs = client.run_jobs(run.id, 0, None).await.unwrap();
    assert_eq!(jobs[0].error_message.as_deref(), Some("the step failed"));
}

#[tokio::test(start_paused = true)]
async fn artifacts_keep_their_blobs_and_go_after_their_time() {
    let store = store();
    let day = Duration::from_secs(24 * 3_600);
    let options =
        executr_coordinator::Options { retention: day, artifact_retention: 5 * day, ..crate::support::options() };
    let observer = std::sync::Arc::new(executr_coordinator::Unobserved);
    let coordinator = executr_coordinator::Coordinator::start(store.clone(), options, observer).await.unwrap();
    let client = client(&coordinator);
    let content = [4; 100_000];
    let made = put_tree(&client, &content, true).await;
    let run = Plan::new(&["a"]).makes("a", "out").submit(&coordinator).await;
    let mut worker = Worker::new("w", 1);
    worker.exchange(&coordinator).await;
    hand_on(&mut worker, "a", &[], vec![artifact("out", made)]);
    worker.exchange(&coordinator).await;
    sleep(3 * day).await;
    assert!(client.run(run.id).await.is_err(), "the run is gone");
    assert_eq!(client.artifacts(ArtifactQuery { run: Some(run.id), limit: None }).await.unwrap().len(), 1);
    assert!(client.has_blob(made).await.unwrap() && client.has_blob(Digest::of(&content)).await.unwrap());
    sleep(4 * day).await;
    assert!(client.artifacts(ArtifactQuery::default()).await.unwrap().is_empty());
    assert!(!client.has_blob(made).await.unwrap() && !client.has_blob(Digest::of(&content)).await.unwrap());
}
