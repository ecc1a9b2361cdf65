//! Conditions that only the coordinator can decide.

use std::time::Duration;

use executr_api::{JobState, Outcome, RunCancel, RunClient, RunState};
use executr_spec::{JobId, JobSpec, RunId, SpecJson, Step, StepCommand};
use executr_store::{Gate, NewJob, NewRun, NewRunJob, Store as _};
use tokio::time::sleep;

use super::handing_on::hand_on;
use crate::support::{Plan, Worker, client, settle, start, store};

const LONG: Duration = Duration::from_secs(60);

async fn states(coordinator: &executr_coordinator::Coordinator, run: RunId) -> Vec<JobState> {
    client(coordinator).run_jobs(run, 0, None).await.unwrap().iter().map(|job| job.state).collect()
}

#[tokio::test(start_paused = true)]
async fn expressions_see_the_matrix_the_needs_and_the_run() {
    let store = store();
    let coordinator = start(&store).await;
    let jobs = [
        "a",
        "matrix: a if ${{ matrix.os == 'linux' }}",
        "other: a if ${{ matrix.os == 'plan9' }}",
        "output: a if ${{ needs.a.outputs.version == '1.2' && needs.a.result == 'success' }}",
        "named: a if ${{ run.name == 'w' && job.name == 'named' && env.MODE == 'fast' }}",
        "failed: a if ${{ failure() && matrix.os == 'linux' }}",
    ];
    let mut plan = Plan::new(&jobs);
    for job in &jobs[1..] {
        let name = job.split(':').next().unwrap();
        plan = plan.with(name, |job, workflow| {
            workflow.matrix.insert("os".to_owned(), "linux".into());
            job.spec.env.insert("MODE".to_owned(), "fast".to_owned());
        });
    }
    let run = plan.submit(&coordinator).await;
    let mut worker = Worker::new("w", 9).waiting(LONG);
    worker.exchange(&coordinator).await;
    hand_on(&mut worker, "a", &[("version", "1.2")], Vec::new());
    while worker.held.len() < 3 {
        worker.exchange(&coordinator).await;
    }
    assert_eq!(worker.names(), ["matrix", "named", "output"]);
    settle().await;
    use JobState::{Completed, Running, Skipped};
    assert_eq!(states(&coordinator, run.id).await, [Completed, Running, Skipped, Running, Running, Skipped]);
}

#[tokio::test(start_paused = true)]
async fn a_job_without_needs_is_asked_about_at_once_and_after_a_failure_too() {
    let store = store();
    let coordinator = start(&store).await;
    let jobs = ["a if ${{ 1 == 1 }}", "b: a if ${{ failure() || matrix.always }}", "c: a if ${{ matrix.x == 1 }}"];
    let run = Plan::new(&jobs).submit(&coordinator).await;
    settle().await;
    let mut worker = Worker::new("w", 9).waiting(LONG);
    worker.exchange(&coordinator).await;
    worker.end_named("a", Outcome::Failed);
    worker.exchange(&coordinator).await;
    while worker.held.is_empty() {
        worker.exchange(&coordinator).await;
    }
    assert_eq!(worker.names(), ["b"]);
    assert_eq!(states(&coordinator, run.id).await, [JobState::Failed, JobState::Running, JobState::Skipped]);
}

#[tokio::test(start_paused = true)]
async fn an_expression_that_cannot_be_decided_fails_its_job_with_words() {
    let store = store();
    let coordinator = start(&store).await;
    let run = Plan::new(&["a if ${{ fromJSON('{') == 1 }}", "b: a"]).submit(&coordinator).await;
    let run = client(&coordinator).wait_run(run.id, LONG).await.unwrap();
    assert_eq!(run.state, RunState::Failed);
    let jobs = client(&coordinator).run_jobs(run.id, 0, None).await.unwrap();
    let message = jobs[0].error_message.clone().unwrap();
    assert!(message.contains("${{ fromJSON('{') == 1 }}") && message.contains("can't be decided"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_question_that_nobody_answered_is_answered_by_the_next_coordinator() {
    let store = store();
    let coordinator = start(&store).await;
    let run = Plan::new(&["a", "b: a if ${{ needs.a.result == 'success' }}"]).submit(&coordinator).await;
    let mut worker = Worker::new("w", 1);
    worker.exchange(&coordinator).await;
    drop(coordinator);
    // The result is taken, and whoever took it dies before it asks.
    let finish = executr_store::Finish { result: crate::support::result(worker.held[0], Outcome::Succeeded) };
    executr_store::Store::finish(&*store, vec![finish]).await.unwrap();
    worker.held.clear();
    let coordinator = start(&store).await;
    sleep(Duration::from_secs(1)).await;
    worker.exchange(&coordinator).await;
    assert_eq!(worker.names(), ["b"]);
    assert_eq!(states(&coordinator, run.id).await[1], JobState::Running);
}

/// A run whose plan no coordinator can read, with a job that it is asked about.
fn unreadable() -> NewRun {
    let spec = JobSpec::new(vec![Step::new(StepCommand::Run("true".to_owned()))]);
    let job = NewJob {
        id: JobId(uuid::Uuid::now_v7()),
        tenant: "default".parse().unwrap(),
        job_type: "command".parse().unwrap(),
        queue: "default".parse().unwrap(),
        class: spec.requirements().class(),
        priority: spec.priority,
        run_at: None,
        max_retries: 0,
        backoff: spec.backoff,
        idempotency_key: None,
        concurrency: None,
        blobs: Vec::new(),
        spec: SpecJson::write(&spec).unwrap(),
    };
    let job = NewRunJob {
        job,
        name: "a".to_owned(),
        needs: Vec::new(),
        gate: Gate::Ask,
        continue_on_error: false,
        pinned: None,
        inputs: Vec::new(),
        done: None,
    };
    NewRun {
        id: RunId(uuid::Uuid::now_v7()),
        tenant: "default".parse().unwrap(),
        name: "later".to_owned(),
        fail_fast: true,
        timeout: None,
        source: None,
        rerun_of: None,
        plan: r#"{"version": 9}"#.into(),
        blobs: Vec::new(),
        idempotency_key: None,
        jobs: vec![job],
    }
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_cannot_be_read_stops_no_other_run() {
    let store = store();
    let older = store.runs().unwrap().submit_run(unreadable()).await.unwrap().id;
    let coordinator = start(&store).await;
    let run = Plan::new(&["a", "b: a if ${{ needs.a.result == 'success' }}"]).submit(&coordinator).await;
    let mut worker = Worker::new("w", 1);
    worker.exchange(&coordinator).await;
    drop(coordinator);
    let finish = executr_store::Finish { result: crate::support::result(worker.held[0], Outcome::Succeeded) };
    store.finish(vec![finish]).await.unwrap();
    worker.held.clear();
    let coordinator = start(&store).await;
    sleep(Duration::from_secs(1)).await;
    worker.exchange(&coordinator).await;
    assert_eq!(worker.names(), ["b"]);
    assert_eq!(states(&coordinator, run.id).await[1], JobState::Running);
    assert_eq!(store.runs().unwrap().run(older).await.unwrap().unwrap().state, RunState::Running);
}

#[tokio::test(start_paused = true)]
async fn questions_are_answered_after_many_came_at_once() {
    let store = store();
    let coordinator = start(&store).await;
    for _ in 0..3 {
        let run =
            Plan::new(&["a if ${{ 1 == 2 }}", "b if ${{ 1 == 2 }}", "c if ${{ 1 == 2 }}"]).submit(&coordinator).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(states(&coordinator, run.id).await, [JobState::Skipped; 3], "without waiting for the next look");
    }
}

#[tokio::test(start_paused = true)]
async fn conditions_that_ask_for_success_or_failure_end_with_a_cancel() {
    let store = store();
    let coordinator = start(&store).await;
    let jobs = [
        "a",
        "b if ${{ success() && 1 == 1 }}",
        "c if ${{ success() || failure() }}",
        "d: a if ${{ failure() && 1 == 1 }}",
        "e: a if ${{ always() && 1 == 1 }}",
    ];
    let run = Plan::new(&jobs).submit(&coordinator).await;
    settle().await;
    let mut worker = Worker::new("w", 9).waiting(LONG);
    while worker.held.len() < 3 {
        worker.exchange(&coordinator).await;
    }
    client(&coordinator).cancel_run(run.id, RunCancel::InOrder).await.unwrap();
    use JobState::{Cancelling, Waiting};
    assert_eq!(states(&coordinator, run.id).await, [Cancelling, Cancelling, Cancelling, Waiting, Waiting]);
    for name in ["a", "b", "c"] {
        worker.end_named(name, Outcome::Cancelled);
    }
    worker.exchange(&coordinator).await;
    while worker.held.is_empty() {
        worker.exchange(&coordinator).await;
    }
    assert_eq!(worker.names(), ["e"]);
    assert_eq!(states(&coordinator, run.id).await[3], JobState::Cancelled);
}
