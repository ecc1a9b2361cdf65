//! The original's routes, status by status: its own client checks 201 and 204 to the letter.

use executr_spec::Timestamp;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use tokio::time::timeout;

use crate::running::{PATIENCE, Server};

const SHA: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn submission() -> Value {
    json!({
        "type": "data-processing",
        "binary_url": "https://example.com/binary",
        "binary_sha256": SHA,
        "arguments": ["--in", "x"],
        "env_variables": {"K": "v"},
        "priority": "foreground",
        "max_retries": 2,
    })
}

#[tokio::test]
async fn a_job_goes_from_submission_to_completion() {
    let server = Server::start().await;
    let (status, job) = server.post("/jobs", submission()).await;
    assert_eq!(status, StatusCode::CREATED, "{job}");
    for field in [
        "id",
        "type",
        "binary_url",
        "binary_sha256",
        "arguments",
        "env_variables",
        "priority",
        "status",
        "executor_id",
        "stdout",
        "stderr",
        "exit_code",
        "error_message",
        "created_at",
        "started_at",
        "completed_at",
        "last_heartbeat",
    ] {
        assert!(job.get(field).is_some(), "{field} is missing: {job}");
    }
    assert_eq!((&job["status"], &job["arguments"]), (&json!("pending"), &json!(["--in", "x"])));
    let created = job["created_at"].as_str().unwrap();
    assert!(created.ends_with('Z') && created.parse::<Timestamp>().is_ok(), "{created}");
    let id = job["id"].as_str().unwrap();

    let claim = json!({"executor_id": "w-1", "executor_ip": "10.0.0.1"});
    let (status, claimed) = server.post("/jobs/claim", claim.clone()).await;
    assert_eq!((status.as_u16(), &claimed["id"]), (200, &json!(id)));
    assert_eq!((&claimed["status"], &claimed["executor_id"]), (&json!("running"), &json!("w-1")));
    assert_eq!(server.post("/jobs/claim", claim).await, (StatusCode::NO_CONTENT, Value::Null));

    let beat = server.put(&format!("/jobs/{id}/heartbeat"), json!({"executor_id": "w-1"})).await;
    assert_eq!(beat, (StatusCode::NO_CONTENT, Value::Null));
    let end = json!({"executor_id": "w-1", "stdout": "out\n", "stderr": "err\n", "exit_code": 0});
    // A zombie's answer changes nothing.
    let mut zombies = end.clone();
    zombies["executor_id"] = json!("w-0");
    assert_eq!(server.put(&format!("/jobs/{id}/complete"), zombies).await.0, 400);
    let complete = server.put(&format!("/jobs/{id}/complete"), end.clone()).await;
    assert_eq!(complete, (StatusCode::NO_CONTENT, Value::Null));
    assert_eq!(server.put(&format!("/jobs/{id}/fail"), end).await.0, 400);

    let (status, job) = server.get(&format!("/jobs/{id}")).await;
    assert_eq!(status, 200);
    assert_eq!((&job["status"], &job["exit_code"]), (&json!("completed"), &json!(0)));
    assert_eq!((&job["stdout"], &job["stderr"]), (&json!("out\n"), &json!("err\n")));
    let attempt = &job["attempts"][0];
    for field in ["id", "job_id", "executor_id", "executor_ip", "started_at", "ended_at", "status", "error_message"] {
        assert!(attempt.get(field).is_some(), "{field} is missing: {attempt}");
    }
    assert_eq!((&attempt["status"], &attempt["executor_ip"]), (&json!("completed"), &json!("10.0.0.1")));
}

#[tokio::test]
async fn a_failure_is_repeated_as_often_as_asked() {
    let server = Server::start().await;
    let mut asked = submission();
    asked["max_retries"] = json!(0);
    let (_, job) = server.post("/jobs", asked).await;
    let id = job["id"].as_str().unwrap();
    assert_eq!(server.post("/jobs/claim", json!({"executor_id": "w-1"})).await.0, 200);
    let end = json!({"executor_id": "w-1", "stdout": "", "stderr": "", "exit_code": 3, "error_message": "exit 3"});
    assert_eq!(server.put(&format!("/jobs/{id}/fail"), end).await.0, 204);
    let (_, job) = server.get(&format!("/jobs/{id}")).await;
    assert_eq!((&job["status"], &job["exit_code"]), (&json!("failed"), &json!(3)));
    assert_eq!(job["error_message"], "exit 3");
}

#[tokio::test]
async fn only_pending_jobs_are_deleted() {
    let server = Server::start().await;
    let (_, job) = server.post("/jobs", submission()).await;
    let path = format!("/jobs/{}", job["id"].as_str().unwrap());
    assert_eq!(server.delete(&path).await, (StatusCode::NO_CONTENT, Value::Null));
    assert_eq!(server.get(&path).await.1["status"], "cancelled");
    assert_eq!(server.delete(&path).await.0, 400);
    assert_eq!(server.delete("/jobs/00000000-0000-0000-0000-000000000000").await.0, 404);
}

#[tokio::test]
async fn jobs_are_listed_and_filtered() {
    let server = Server::start().await;
    for (kind, priority) in [("a", "foreground"), ("b", "background"), ("a", "best_effort")] {
        let mut job = submission();
        job["type"] = json!(kind);
        job["priority"] = json!(priority);
        assert_eq!(server.post("/jobs", job).await.0, 201);
    }
    for (query, count) in [
        ("", 3),
        ("?type=a", 2),
        ("?priority=background", 1),
        ("?status=pending", 3),
        ("?status=running", 0),
        ("?limit=2", 2),
        ("?offset=2", 1),
        ("?queue=other", 0),
    ] {
        let (status, jobs) = server.get(&format!("/jobs{query}")).await;
        assert_eq!((status.as_u16(), jobs.as_array().map(Vec::len)), (200, Some(count)), "{query}");
    }
}

#[tokio::test]
async fn bulk_calls_answer_as_documented() {
    let server = Server::start().await;
    let (status, made) = server.post("/jobs/bulk", json!([submission(), submission()])).await;
    assert_eq!(status, 201);
    let ids: Vec<_> = made.as_array().unwrap().iter().map(|job| job["id"].clone()).collect();
    assert_eq!((ids.len(), &made[0]["status"]), (2, &json!("pending")));
    let (status, answer) = server.post("/jobs/bulk/cancel", json!({"job_ids": [ids[0], ids[0], ids[1]]})).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["cancelled"], 2);
    assert_eq!(answer["errors"].as_array().map(Vec::len), answer["failed"].as_u64().map(|n| n as usize));
    // All or none.
    let (status, error) = server.post("/jobs/bulk", json!([submission(), {"type": "x"}])).await;
    assert_eq!(status, 400);
    assert_eq!(error["context"]["index"], "1", "{error}");
    assert_eq!(server.get("/jobs?status=pending").await.1, json!([]));
}

#[tokio::test]
async fn statistics_have_the_originals_fields() {
    let server = Server::start().await;
    server.post("/jobs", submission()).await;
    assert_eq!(server.post("/jobs/claim", json!({"executor_id": "w-1"})).await.0, 200);
    server.post("/jobs", submission()).await;
    let (_, stats) = server.get("/admin/stats").await;
    assert_eq!(stats["jobs_by_status"]["pending"], 1, "{stats}");
    assert_eq!(stats["jobs_by_status"]["running"], 1, "{stats}");
    assert_eq!(stats["pending_by_priority"]["foreground"], 1, "{stats}");
    // What is known of executors is written down a moment later.
    let executors = timeout(PATIENCE, async {
        loop {
            let (_, executors) = server.get("/admin/executors").await;
            if executors.as_array().is_some_and(|executors| !executors.is_empty()) {
                return executors;
            }
        }
    });
    let executors = executors.await.unwrap();
    assert_eq!(server.get("/admin/stats").await.1["active_executors"], 1);
    for field in ["executor_id", "current_job_id", "job_type", "last_heartbeat", "jobs_completed"] {
        assert!(executors[0].get(field).is_some(), "{field} is missing: {executors}");
    }
    assert_eq!(executors[0]["job_type"], "data-processing");
}

#[tokio::test]
async fn an_unknown_job_is_not_found_on_every_route() {
    let server = Server::start().await;
    let path = |end: &str| format!("/jobs/00000000-0000-0000-0000-000000000000{end}");
    let end = json!({"executor_id": "w", "stdout": "", "stderr": "", "exit_code": 0});
    for (method, path, body) in [
        (Method::GET, path(""), None),
        (Method::DELETE, path(""), None),
        (Method::PUT, path("/heartbeat"), Some(json!({"executor_id": "w"}))),
        (Method::PUT, path("/complete"), Some(end.clone())),
        (Method::PUT, path("/fail"), Some(end)),
    ] {
        assert_eq!(server.send(method.clone(), &path, body).await.0, 404, "{method} {path}");
    }
}
