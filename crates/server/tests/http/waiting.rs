//! Calls that wait.

use std::time::Duration;

use executr_coordinator::Options;
use reqwest::Method;
use serde_json::json;
use tokio::time::timeout;

use crate::running::{PATIENCE, Server, Setup, finish, report, success};

#[tokio::test]
async fn a_wait_ends_with_the_job_or_the_time() {
    let server = Server::start().await;
    let job = server.submit().await;
    let path = format!("/jobs/{}/wait", job.id);
    let (status, waited) = server.get(&format!("{path}?timeout=10ms")).await;
    assert_eq!((status.as_u16(), &waited["status"]), (200, &json!("pending")));

    let mut worker = report("w");
    let lease = server.take(&mut worker).await;
    let waiting = format!("{path}?timeout=60s");
    let (waited, _) =
        timeout(PATIENCE, async { tokio::join!(server.get(&waiting), finish(&server, &mut worker, success(&lease))) })
            .await
            .unwrap();
    assert_eq!((waited.0.as_u16(), &waited.1["status"]), (200, &json!("completed")));
    assert_eq!(server.get(&format!("{path}?timeout=soon")).await.0, 400);
}

#[tokio::test]
async fn a_waiting_job_is_cancelled_at_once_and_a_running_one_when_its_worker_says_so() {
    let server = Server::start().await;
    let job = server.submit().await;
    let (status, cancelled) = server.send(Method::POST, &format!("/jobs/{}/cancel", job.id), None).await;
    assert_eq!((status.as_u16(), &cancelled["status"]), (200, &json!("cancelled")));

    let job = server.submit().await;
    let mut worker = report("w");
    let lease = server.take(&mut worker).await;
    let path = format!("/jobs/{}/cancel", job.id);
    let (status, cancelling) = server.send(Method::POST, &path, None).await;
    assert_eq!((status.as_u16(), &cancelling["status"]), (202, &json!("running")));
    assert_eq!(cancelling["state"], "cancelling");

    worker.sequence += 1;
    let orders = server.exchange(&worker).await;
    assert_eq!(orders.cancels, [lease.fence]);
    let mut result = success(&lease);
    result.outcome = executr_api::Outcome::Cancelled;
    let waiting = format!("{path}?wait=60s");
    let (cancelled, _) = timeout(PATIENCE, async {
        tokio::join!(server.send(Method::POST, &waiting, None), finish(&server, &mut worker, result))
    })
    .await
    .unwrap();
    assert_eq!((cancelled.0.as_u16(), &cancelled.1["status"]), (200, &json!("cancelled")));
    // A job that has ended stays as it is.
    assert_eq!(server.send(Method::POST, &path, None).await.0, 200);
}

#[tokio::test]
async fn a_cancel_does_not_say_that_all_is_gone_when_the_worker_was_lost() {
    let coordinator = Options { lease: Duration::from_millis(300), ..Options::default() };
    let server = Server::with(Setup { coordinator, ..Setup::default() }).await;
    let job = server.submit().await;
    server.take(&mut report("w")).await;
    let path = format!("/jobs/{}/cancel?wait=30s", job.id);
    let (status, cancelled) = server.send(Method::POST, &path, None).await;
    assert_eq!((status.as_u16(), &cancelled["status"]), (202, &json!("cancelled")));
}

#[tokio::test]
async fn a_worker_of_another_age_is_told_what_to_upgrade() {
    let server = Server::start().await;
    let mut worker = report("w");
    worker.worker.version = "0.99.0".parse().unwrap();
    let (status, body) = server.post("/worker/exchange", serde_json::to_value(&worker).unwrap()).await;
    assert_eq!(status, 426);
    assert!(body["error"].as_str().unwrap().contains("upgrade the server"), "{body}");
}
