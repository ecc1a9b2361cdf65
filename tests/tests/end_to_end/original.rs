//! The original's client and executor, as they speak: every status to the letter.

use serde_json::{Value, json};

use crate::http::{call, get};
use crate::system::System;

const SHA: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn flat(kind: &str) -> Value {
    json!({
        "type": kind, "binary_url": "https://example.com/b", "binary_sha256": SHA,
        "arguments": ["a", "b c"], "env_variables": {"K": "v"}, "priority": "foreground", "max_retries": 0
    })
}

#[test]
fn a_job_goes_from_submission_to_completion() {
    let system = System::server(&[]);
    let url = &system.url;
    assert_eq!(get(url, "/health").json(), json!({"status": "healthy", "database": "connected"}));

    let submitted = call(url, "POST", "/jobs", &flat("report"));
    assert_eq!(submitted.status, 201);
    let job = submitted.json();
    let id = job["id"].as_str().unwrap();
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
        assert!(job.get(field).is_some(), "{field}");
    }
    assert_eq!((&job["status"], &job["arguments"]), (&"pending".into(), &json!(["a", "b c"])));

    let claim = json!({"executor_id": "e-1", "executor_ip": "10.0.0.1"});
    let claimed = call(url, "POST", "/jobs/claim", &claim);
    assert_eq!((claimed.status, claimed.json()["id"].as_str()), (200, Some(id)));
    assert_eq!(call(url, "POST", "/jobs/claim", &claim).status, 204);

    let me = json!({"executor_id": "e-1"});
    assert_eq!(call(url, "PUT", &format!("/jobs/{id}/heartbeat"), &me).status, 204);
    let end = json!({"executor_id": "e-1", "stdout": "out", "stderr": "", "exit_code": 0});
    assert_eq!(call(url, "PUT", &format!("/jobs/{id}/complete"), &end).status, 204);
    assert_eq!(call(url, "PUT", &format!("/jobs/{id}/heartbeat"), &me).status, 404);

    let job = get(url, &format!("/jobs/{id}")).json();
    assert_eq!((&job["status"], &job["stdout"], &job["exit_code"]), (&"completed".into(), &"out".into(), &0.into()));
    assert_eq!(job["attempts"][0]["executor_ip"], "10.0.0.1");
}

#[test]
fn a_failure_is_recorded_and_a_wrong_transition_refused() {
    let system = System::server(&[]);
    let url = &system.url;
    let id = call(url, "POST", "/jobs", &flat("t")).json()["id"].as_str().unwrap().to_owned();
    let end = json!({"executor_id": "e-1", "stdout": "", "stderr": "bad", "exit_code": 3, "error_message": "exit 3"});
    assert_eq!(call(url, "PUT", &format!("/jobs/{id}/fail"), &end).status, 400, "nobody has it");
    assert_eq!(call(url, "POST", "/jobs/claim", &json!({"executor_id": "e-1", "executor_ip": "::1"})).status, 200);
    assert_eq!(call(url, "PUT", &format!("/jobs/{id}/fail"), &end).status, 204);
    let job = get(url, &format!("/jobs/{id}")).json();
    assert_eq!((&job["status"], &job["error_message"]), (&"failed".into(), &"exit 3".into()));
    let unknown = "01890a5d-ac96-774b-bcce-b302099a8057";
    assert_eq!(call(url, "PUT", &format!("/jobs/{unknown}/complete"), &end).status, 404);
}

#[test]
fn a_zombies_late_answer_changes_nothing() {
    let system = System::server(&["--heartbeat-timeout", "300ms"]);
    let url = &system.url;
    let id = call(url, "POST", "/jobs", &flat("t")).json()["id"].as_str().unwrap().to_owned();
    let claim =
        |executor: &str| call(url, "POST", "/jobs/claim", &json!({"executor_id": executor, "executor_ip": "::1"}));
    assert_eq!(claim("zombie").status, 200);
    // Not heard of again, it loses the job.
    crate::system::eventually("another may claim it", || (claim("next").status == 200).then_some(()));
    let end = |executor: &str, out: &str| {
        let end = json!({"executor_id": executor, "stdout": out, "stderr": "", "exit_code": 0});
        call(url, "PUT", &format!("/jobs/{id}/complete"), &end).status
    };
    assert_eq!(end("zombie", "wrong"), 400);
    assert_eq!(end("next", "right"), 204);
    assert_eq!(end("zombie", "wrong"), 400);
    let job = get(url, &format!("/jobs/{id}")).json();
    assert_eq!((&job["stdout"], &job["status"]), (&"right".into(), &"completed".into()));
    let lost: Vec<_> = job["attempts"].as_array().unwrap().iter().map(|attempt| attempt["status"].clone()).collect();
    assert_eq!(lost, ["lost", "completed"]);
}

#[test]
fn only_pending_jobs_are_deleted() {
    let system = System::server(&[]);
    let url = &system.url;
    let submit = || call(url, "POST", "/jobs", &flat("t")).json()["id"].as_str().unwrap().to_owned();
    let delete = |id: &str| call(url, "DELETE", &format!("/jobs/{id}"), &Value::Null).status;
    let id = submit();
    assert_eq!(delete(&id), 204);
    assert_eq!(delete(&id), 400);
    assert_eq!(delete("01890a5d-ac96-774b-bcce-b302099a8057"), 404);
    let answer = call(url, "POST", "/jobs/bulk/cancel", &json!({"job_ids": [submit(), id]}));
    assert_eq!(answer.status, 200);
    assert_eq!((&answer.json()["cancelled"], &answer.json()["failed"]), (&1.into(), &1.into()));
}

#[test]
fn lists_bulk_and_statistics_answer_as_documented() {
    let system = System::server(&[]);
    let url = &system.url;
    let bulk = call(url, "POST", "/jobs/bulk", &json!([flat("a"), flat("b"), flat("b")]));
    assert_eq!((bulk.status, bulk.json().as_array().unwrap().len()), (201, 3));
    assert_eq!(bulk.json()[0]["status"], "pending");
    assert_eq!(get(url, "/jobs?type=b&status=pending&limit=1").json().as_array().unwrap().len(), 1);
    assert_eq!(get(url, "/jobs?type=b").json().as_array().unwrap().len(), 2);
    assert_eq!(get(url, "/jobs?limit=1001").status, 400);
    let stats = get(url, "/admin/stats").json();
    assert_eq!(
        (&stats["jobs_by_status"]["pending"], &stats["pending_by_priority"]["foreground"]),
        (&3.into(), &3.into())
    );
    assert_eq!(get(url, "/admin/executors").json(), json!([]));
    let metrics = get(url, "/metrics");
    assert!(metrics.body.contains("executr_jobs_submitted_total 3"), "{}", metrics.body);
    for wrong in [json!({"type": "two words"}), json!({"type": "t", "binary_url": "https://h/b"}), json!([1])] {
        let refused = call(url, "POST", "/jobs", &wrong);
        assert_eq!(refused.status, 400, "{wrong}");
        assert!(refused.json()["error"].is_string() && refused.json()["context"].is_object());
    }
}
