//! Runs over HTTP: every call once, and events that lose nothing.

use std::sync::atomic::Ordering;
use std::time::Duration;

use executr_api::{
    ArtifactQuery, ErrorCode, JobState, Outcome, RerunScope, RunCancel, RunClient, RunEvent, RunEventFollow,
    RunEventKind, RunQuery, RunState, RunSubmission,
};
use executr_spec::workflow::{PlannedJob, RunPlan, WorkflowJob};
use executr_spec::{Condition, JobSpec, RunId, Step, StepCommand};
use futures_util::{StreamExt, TryStreamExt};
use tokio::time::timeout;
use uuid::Uuid;

use crate::line::Line;
use crate::server::{PATIENCE, Server, client_of};
use crate::work::Worker;

/// So many jobs, each after the one before.
fn chain(length: u32) -> RunSubmission {
    let job = |place: u32| {
        let name = format!("j{place}");
        let mut spec = JobSpec::new(vec![Step::new(StepCommand::Run("true".to_owned()))]);
        let workflow = WorkflowJob { workflow: "chain".to_owned(), name: name.clone(), ..WorkflowJob::default() };
        spec.workflow = Some(Box::new(workflow));
        let needs = place.checked_sub(1).into_iter().collect();
        PlannedJob { name, needs, condition: Condition::Success, continue_on_error: false, spec }
    };
    let jobs = (0..length).map(job).collect();
    let plan = RunPlan { name: "chain".to_owned(), fail_fast: true, timeout: None, source: None, jobs };
    RunSubmission { plan, idempotency_key: None }
}

async fn work(server: &Server, jobs: u32) {
    let mut worker = Worker::new(server.client());
    for _ in 0..jobs {
        let lease = worker.take().await;
        worker.finish(lease.fence, Outcome::Succeeded, 0).await;
    }
}

#[tokio::test]
async fn runs_are_submitted_looked_at_waited_for_cancelled_and_repeated() {
    let server = Server::start().await;
    let client = server.client();
    let keyed = RunSubmission { idempotency_key: Some("k".to_owned()), ..chain(3) };
    let run = client.submit_run(keyed.clone()).await.unwrap();
    assert_eq!((run.state, run.jobs[&JobState::Waiting]), (RunState::Running, 2));
    assert_eq!(client.submit_run(keyed).await.unwrap().id, run.id);
    assert_eq!(client.run(run.id).await.unwrap(), run);
    let query =
        RunQuery { state: Some(RunState::Running), name: Some("chain".to_owned()), limit: Some(5), before: None };
    assert_eq!(client.runs(query).await.unwrap(), std::slice::from_ref(&run));
    assert_eq!(client.run_plan(run.id).await.unwrap(), chain(3).plan);
    let short = client.wait_run(run.id, Duration::from_millis(1)).await.unwrap();
    assert_eq!(short.state, RunState::Running);
    let (ended, ()) = tokio::join!(client.wait_run(run.id, PATIENCE), work(&server, 3));
    assert_eq!(ended.unwrap().state, RunState::Completed);
    let jobs = client.run_jobs(run.id, 1, Some(1)).await.unwrap();
    assert_eq!((jobs.len(), jobs[0].name.as_str(), jobs[0].state), (1, "j1", JobState::Completed));
    assert!(client.artifacts(ArtifactQuery::default()).await.unwrap().is_empty());
    let of_run = ArtifactQuery { run: Some(run.id), limit: Some(1) };
    assert!(client.artifacts(of_run).await.unwrap().is_empty());

    let again = client.rerun(run.id, RerunScope::All).await.unwrap();
    assert_eq!(again.rerun_of, Some(run.id));
    let error = client.rerun(again.id, RerunScope::Failed).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict);
    assert_eq!(client.cancel_run(again.id, RunCancel::InOrder).await.unwrap().state, RunState::Cancelled);

    let nobody = RunId(Uuid::from_u128(1));
    assert_eq!(client.run(nobody).await.unwrap_err().code, ErrorCode::NotFound);
    let error = client.run_events(nobody, RunEventFollow::default()).await.err().unwrap();
    assert_eq!(error.code, ErrorCode::NotFound);
    let before = RunQuery { before: Some(run.id), ..RunQuery::default() };
    assert!(client.runs(before).await.unwrap().is_empty());
}

#[tokio::test]
async fn events_that_are_followed_over_a_breaking_line_come_once_each() {
    const JOBS: u32 = 20;
    let server = Server::start().await;
    // Each connection brings a bit more than the one before, so that breaks fall anywhere.
    let line = Line::to(server.address, |number| (number < 12).then_some(150 + 371 * number as u64)).await;
    let run = server.client().submit_run(chain(JOBS)).await.unwrap();
    let read = async {
        let follow = RunEventFollow { after: 0, follow: true };
        let client = client_of(line.address);
        let events = loop {
            // The first connections break before there is an answer.
            if let Ok(events) = client.run_events(run.id, follow).await {
                break events;
            }
        };
        events.map(Result::unwrap).collect::<Vec<RunEvent>>().await
    };
    let (events, ()) = timeout(PATIENCE, async { tokio::join!(read, work(&server, JOBS)) }).await.unwrap();
    let numbers: Vec<u64> = events.iter().map(|event| event.number).collect();
    assert_eq!(numbers, (1..=2 + 2 * u64::from(JOBS)).collect::<Vec<_>>());
    assert_eq!(events.last().unwrap().kind, RunEventKind::RunEnded { state: RunState::Completed });
    assert!(line.connections.load(Ordering::SeqCst) > 5);

    let late = server.client().run_events(run.id, RunEventFollow { after: 40, follow: false }).await.unwrap();
    assert_eq!(late.try_collect::<Vec<RunEvent>>().await.unwrap(), events[40..]);
}
