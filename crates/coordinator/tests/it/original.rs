//! The routes of the original's own executor.

use std::time::Duration;

use executr_api::{CancelWait, Client, ErrorCode, JobState, JobStatus, JobView};
use executr_coordinator::{Coordinator, OriginalEnd};
use executr_spec::{JobId, WorkerId};
use tokio::time::{Instant, sleep};

use crate::support::{LEASE, Worker, client, start, store, submit, submit_plain};

const FLAT: &str = r#"{"type":"t","binary_url":"https://h/b","max_retries":1,"backoff":{"min_time":"1s"},
    "binary_sha256":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}"#;

fn id(name: &str) -> WorkerId {
    WorkerId(name.to_owned())
}

async fn claim(coordinator: &Coordinator, name: &str) -> Option<JobView> {
    coordinator.claim_for_original(id(name), Some("10.0.0.1".to_owned())).await.unwrap()
}

fn well() -> OriginalEnd {
    OriginalEnd {
        succeeded: true,
        stdout: "out\n".to_owned(),
        stderr: "err\n".to_owned(),
        exit_code: Some(0),
        error_message: None,
    }
}

fn badly() -> OriginalEnd {
    OriginalEnd { succeeded: false, exit_code: Some(3), error_message: Some("exit status 3".to_owned()), ..well() }
}

#[tokio::test(start_paused = true)]
async fn an_executor_of_the_original_claims_beats_and_completes() {
    let store = store();
    let coordinator = start(&store).await;
    assert!(claim(&coordinator, "old").await.is_none());
    let job = submit(&coordinator, FLAT).await;
    let claimed = claim(&coordinator, "old").await.unwrap();
    assert_eq!((claimed.id, claimed.status, claimed.executor_id), (job.id, JobStatus::Running, Some(id("old"))));
    assert_eq!(claimed.attempts.unwrap()[0].executor_ip.as_deref(), Some("10.0.0.1"));
    assert!(claim(&coordinator, "old").await.is_none());
    for _ in 0..10 {
        sleep(Duration::from_secs(5)).await;
        coordinator.heartbeat_original(job.id, &id("old")).await.unwrap();
    }
    coordinator.finish_original(job.id, &id("old"), well()).await.unwrap();
    let view = client(&coordinator).job(job.id).await.unwrap();
    assert_eq!((view.state, view.exit_code, view.lost_leases), (JobState::Completed, Some(0), 0));
    assert_eq!((view.stdout.as_deref(), view.stderr.as_deref()), (Some("out\n"), Some("err\n")));
    sleep(Duration::from_secs(6)).await;
    let worker = &client(&coordinator).workers().await.unwrap()[0];
    assert_eq!((&worker.executor_id, worker.jobs_completed, &worker.version), (&id("old"), 1, &None));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_repeated_and_then_stays() {
    let store = store();
    let coordinator = start(&store).await;
    let job = submit(&coordinator, FLAT).await;
    for state in [JobState::Scheduled, JobState::Failed] {
        claim(&coordinator, "old").await.unwrap();
        coordinator.finish_original(job.id, &id("old"), badly()).await.unwrap();
        let view = client(&coordinator).job(job.id).await.unwrap();
        assert_eq!((view.state, view.error_message.as_deref()), (state, Some("exit status 3")));
        sleep(Duration::from_secs(2)).await;
    }
    assert!(claim(&coordinator, "old").await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_of_an_executor_that_lost_its_job_changes_nothing() {
    let store = store();
    let coordinator = start(&store).await;
    let job = submit(&coordinator, FLAT).await;
    claim(&coordinator, "zombie").await.unwrap();
    sleep(LEASE * 2).await;
    claim(&coordinator, "heir").await.unwrap();
    let error = coordinator.finish_original(job.id, &id("zombie"), badly()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::BadRequest);
    assert!(error.message.contains("held by heir"), "{error}");
    let error = coordinator.heartbeat_original(job.id, &id("zombie")).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NotFound);
    coordinator.finish_original(job.id, &id("heir"), well()).await.unwrap();
    let view = client(&coordinator).job(job.id).await.unwrap();
    assert_eq!((view.state, view.attempt, view.lost_leases), (JobState::Completed, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn answers_that_fit_nothing_are_refused_as_the_original_does() {
    let store = store();
    let coordinator = start(&store).await;
    let job = submit(&coordinator, FLAT).await;
    let unknown = JobId(uuid::Uuid::nil());
    let code = |answer: Result<(), executr_api::ApiError>| answer.unwrap_err().code;
    assert_eq!(code(coordinator.finish_original(job.id, &id("old"), well()).await), ErrorCode::BadRequest);
    assert_eq!(code(coordinator.heartbeat_original(job.id, &id("old")).await), ErrorCode::NotFound);
    assert_eq!(code(coordinator.finish_original(unknown, &id("old"), well()).await), ErrorCode::NotFound);
    assert_eq!(code(coordinator.heartbeat_original(unknown, &id("old")).await), ErrorCode::NotFound);
    claim(&coordinator, "old").await.unwrap();
    coordinator.finish_original(job.id, &id("old"), well()).await.unwrap();
    let error = coordinator.finish_original(job.id, &id("old"), badly()).await.unwrap_err();
    assert_eq!((error.code, error.context["status"].as_str()), (ErrorCode::BadRequest, "completed"));
    let empty = coordinator.claim_for_original(id(""), None).await.unwrap_err();
    assert_eq!(empty.code, ErrorCode::BadRequest);
}

#[tokio::test(start_paused = true)]
async fn jobs_it_could_not_run_are_passed_over_and_kept_for_others() {
    let store = store();
    let coordinator = start(&store).await;
    let steps = submit_plain(&coordinator, 5).await;
    submit(&coordinator, r#"{"steps":[{"argv":["true"]}],"queue":"elsewhere"}"#).await;
    let flat = submit(&coordinator, FLAT).await;
    assert_eq!(claim(&coordinator, "old").await.unwrap().id, flat.id);
    assert!(claim(&coordinator, "old").await.is_none());
    let mut worker = Worker::new("w", 10);
    worker.exchange(&coordinator).await;
    assert_eq!(worker.held.iter().map(|fence| fence.job).collect::<Vec<_>>(), steps);
}

#[tokio::test(start_paused = true)]
async fn an_executor_of_the_original_learns_by_its_beat_that_it_should_stop() {
    let store = store();
    let coordinator = start(&store).await;
    let job = submit(&coordinator, FLAT).await;
    claim(&coordinator, "old").await.unwrap();
    coordinator.heartbeat_original(job.id, &id("old")).await.unwrap();
    client(&coordinator).cancel(job.id, CancelWait::No).await.unwrap();
    let refused = coordinator.heartbeat_original(job.id, &id("old")).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotFound);
    coordinator.finish_original(job.id, &id("old"), badly()).await.unwrap();
    assert_eq!(client(&coordinator).job(job.id).await.unwrap().state, JobState::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_poller_finds_a_job_whose_signal_was_lost() {
    let store = store();
    let (one, other) = (start(&store).await, start(&store).await);
    assert!(claim(&one, "old").await.is_none());
    submit(&other, FLAT).await;
    let begin = Instant::now();
    while claim(&one, "old").await.is_none() {
        assert!(begin.elapsed() < Duration::from_secs(10));
        sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_is_handed_out_though_what_was_passed_over_can_not_be_given_back() {
    let store = store();
    let coordinator = start(&store).await;
    submit_plain(&coordinator, 1).await;
    let job = submit(&coordinator, FLAT).await;
    store.fail("give_back", true);
    assert_eq!(claim(&coordinator, "old").await.unwrap().id, job.id);
}
