//! Runs as they are taken in, or refused.

use bytes::Bytes;
use executr_api::{Client, ErrorCode, JobState, RunClient, RunQuery, RunSubmission};
use executr_spec::{Digest, Step, StepCommand};
use executr_store::Signal;
use executr_tree::Manifest;
use futures_util::{StreamExt as _, stream};

use crate::support::{Plan, Worker, client, start, store};

/// Stores a tree with a file of its own blob; without that blob if `whole` is false.
pub(super) async fn put_tree(client: &dyn Client, content: &[u8], whole: bool) -> Digest {
    let (manifest, blobs) = super::handing_on::tree(content);
    for (digest, bytes) in blobs.into_iter().take(if whole { usize::MAX } else { 0 }) {
        client.put_blob(digest, stream::iter([Ok(bytes)]).boxed()).await.unwrap();
    }
    put_manifest(client, &manifest).await
}

pub(super) async fn put_manifest(client: &dyn Client, manifest: &Manifest) -> Digest {
    let bytes = Bytes::from(manifest.encode());
    client.put_blob(manifest.digest(), stream::iter([Ok(bytes)]).boxed()).await.unwrap();
    manifest.digest()
}

#[tokio::test(start_paused = true)]
async fn the_same_key_is_answered_with_the_same_run() {
    let store = store();
    let coordinator = start(&store).await;
    let client = client(&coordinator);
    let keyed = || RunSubmission { idempotency_key: Some("k".to_owned()), ..Plan::new(&["a", "b: a"]).submission() };
    let first = client.submit_run(keyed()).await.unwrap();
    store.take_published();
    let second = client.submit_run(keyed()).await.unwrap();
    assert_eq!(first.id, second.id);
    assert!(!store.take_published().iter().any(|signal| matches!(signal, Signal::Ready(..))), "nothing became ready");
    assert_eq!(client.runs(RunQuery::default()).await.unwrap().len(), 1);
    for key in [String::new(), "x".repeat(257), "a\0".to_owned()] {
        let submission = RunSubmission { idempotency_key: Some(key), ..keyed() };
        assert_eq!(client.submit_run(submission).await.unwrap_err().context["field"], "idempotency_key");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_plan_is_refused_with_its_place_and_nothing_is_recorded() {
    let store = store();
    let coordinator = start(&store).await;
    let client = client(&coordinator);
    let twice = Plan::new(&["a", "b"]).with("b", |job, workflow| {
        job.name = "a".to_owned();
        workflow.name = "a".to_owned();
    });
    let nobody = Plan::new(&["a", "b"]).gets("a", "out", "b");
    // However many jobs there are, they start from one tree.
    let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
    let mut elsewhere = Plan::new(&["a", "b"]).with("a", |_, workflow| workflow.source = Some(one));
    elsewhere.0.source = Some(one);
    let elsewhere = elsewhere.with("b", |_, workflow| workflow.source = Some(other));
    let nowhere = Plan::new(&["a"]).with("a", |_, workflow| workflow.source = Some(one));
    for (plan, field) in [
        (twice, "jobs[1].name"),
        (nobody, "jobs[0].spec.workflow.inputs[0].from"),
        (elsewhere, "jobs[1].spec.workflow.source"),
        (nowhere, "jobs[0].spec.workflow.source"),
    ] {
        let error = client.submit_run(plan.submission()).await.unwrap_err();
        assert_eq!((error.code, error.context["field"].as_str()), (ErrorCode::BadRequest, field), "{error}");
        assert!(error.context.contains_key("index"));
    }
    assert!(client.runs(RunQuery::default()).await.unwrap().is_empty());
    assert_eq!(client.stats().await.unwrap().jobs_by_status["pending"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_run_needs_the_blobs_that_it_names() {
    let store = store();
    let coordinator = start(&store).await;
    let client = client(&coordinator);
    let from = |source| {
        let mut plan = Plan::new(&["a"]).with("a", |_, workflow| workflow.source = Some(source));
        plan.0.source = Some(source);
        plan
    };
    let error = client.submit_run(from(Digest::of(b"none")).submission()).await.unwrap_err();
    assert_eq!((error.code, error.context["field"].as_str()), (ErrorCode::BadRequest, "source"));

    let content = vec![7; 100_000];
    let half = put_tree(&client, &content, false).await;
    let error = client.submit_run(from(half).submission()).await.unwrap_err();
    assert_eq!((error.code, error.context["missing"].as_str()), (ErrorCode::BadRequest, "1"), "{error}");

    client.put_blob(Digest::of(b"text"), stream::iter([Ok(Bytes::from_static(b"text"))]).boxed()).await.unwrap();
    let error = client.submit_run(from(Digest::of(b"text")).submission()).await.unwrap_err();
    assert!(error.message.contains("is no tree"), "{error}");

    let whole = put_tree(&client, &content, true).await;
    let run = client.submit_run(from(whole).submission()).await.unwrap();
    assert_eq!(run.source, Some(whole));

    let missing = Digest::of(b"program");
    let binary = Plan::new(&["a"]).with("a", |job, _| {
        let binary = executr_spec::BinaryStep { url: format!("blob:{missing}"), sha256: missing, args: Vec::new() };
        job.spec.steps = vec![Step::new(StepCommand::Binary(binary))];
    });
    let error = client.submit_run(binary.submission()).await.unwrap_err();
    assert_eq!(error.context["blob"], missing.to_string());
}

#[tokio::test(start_paused = true)]
async fn the_keys_of_a_matrix_are_its_run_s_own_and_others_are_shared() {
    let store = store();
    let coordinator = start(&store).await;
    let keyed = |key: &'static str| {
        ["a", "b"].into_iter().fold(Plan::new(&["a", "b"]), |plan, name| {
            plan.with(name, |job, _| job.spec.concurrency_key = Some(key.to_owned()))
        })
    };
    for _ in 0..2 {
        let run = keyed("matrix:test").submit(&coordinator).await;
        assert_eq!((run.jobs[&JobState::Ready], run.jobs[&JobState::Blocked]), (1, 1));
    }
    let first = keyed("deploy").submit(&coordinator).await;
    assert_eq!((first.jobs[&JobState::Ready], first.jobs[&JobState::Blocked]), (1, 1));
    assert_eq!(keyed("deploy").submit(&coordinator).await.jobs[&JobState::Blocked], 2);
    let mut worker = Worker::new("w", 9);
    worker.exchange(&coordinator).await;
    assert_eq!(worker.held.len(), 3);
}
