//! Conditions that only the coordinator can decide.

use std::time::Duration;

use executr_api::{JobState, Outcome, RunClient, RunState};
use executr_spec::RunId;
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
