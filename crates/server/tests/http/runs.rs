//! Runs of workflows.

use executr_api::{AttemptResult, Orders, Outcome, Report};
use reqwest::Method;
use serde_json::{Value, json};

use crate::events::Events;
use crate::running::{Server, report, success};

/// A submission: jobs by their names, with the places of those they need.
pub(crate) fn plan(jobs: &[(&str, &[u32])]) -> Value {
    let job = |(name, needs): &(&str, &[u32])| json!({"name": name, "needs": needs, "spec": {"steps": [{"run": "true"}], "workflow": {"workflow": "w", "name": name}}});
    json!({"plan": {"name": "w", "jobs": jobs.iter().map(job).collect::<Vec<_>>()}})
}

async fn submit(server: &Server, jobs: &[(&str, &[u32])]) -> String {
    let (status, run) = server.post("/workflows", plan(jobs)).await;
    assert_eq!(status, 201, "{run}");
    run["id"].as_str().unwrap().to_owned()
}

/// Takes what there is and ends it, until there is nothing more.
async fn work(server: &Server, worker: &mut Report, end: impl Fn(&str, &mut AttemptResult)) {
    loop {
        worker.sequence += 1;
        worker.wait_ms = 0;
        let Orders { leases, .. } = server.exchange(worker).await;
        worker.finished.clear();
        if leases.is_empty() {
            return;
        }
        for lease in leases {
            let mut result = success(&lease);
            end(&lease.spec.read().unwrap().workflow.unwrap().name, &mut result);
            worker.finished.push(result);
        }
    }
}

#[tokio::test]
async fn a_run_is_submitted_looked_at_and_followed_to_its_end() {
    let server = Server::start().await;
    let id = submit(&server, &[("a", &[]), ("b", &[0]), ("c", &[0])]).await;
    let mut live = Events::of(&server, &format!("/runs/{id}/events?follow=true"), None).await;
    let (name, number, data) = live.next().await.unwrap();
    assert_eq!((name.as_str(), number.as_str(), &data["event"]), ("run_created", "1", &json!("run_created")));
    let (_, run) = server.get(&format!("/runs/{id}")).await;
    assert_eq!((&run["state"], &run["jobs"]), (&json!("running"), &json!({"ready": 1, "waiting": 2})));
    let (status, waited) = server.get(&format!("/runs/{id}/wait?timeout=1ms")).await;
    assert_eq!((status.as_u16(), &waited["state"]), (200, &json!("running")));

    work(&server, &mut report("w"), |_, result| drop(result.outputs.insert("k".to_owned(), "v".to_owned()))).await;
    let mut names = vec![name];
    while let Some((name, _, data)) = live.next().await {
        if name == "end" {
            assert_eq!(data, json!({"after": 8}));
            break;
        }
        names.push(name);
    }
    assert_eq!((names.len(), names.last().unwrap().as_str()), (8, "run_ended"));
    assert!(live.next().await.is_none());
    let mut resumed = Events::of(&server, &format!("/runs/{id}/events?follow=true"), Some("7")).await;
    assert_eq!(resumed.next().await.unwrap().0, "run_ended");
    assert_eq!(resumed.next().await.unwrap().0, "end");
    let (status, listed) = server.get(&format!("/runs/{id}/events?after=6")).await;
    assert_eq!((status.as_u16(), listed.as_array().unwrap().len()), (200, 2));

    let (_, run) = server.get(&format!("/runs/{id}/wait")).await;
    assert_eq!((&run["state"], &run["jobs"]), (&json!("completed"), &json!({"completed": 3})));
    let (_, jobs) = server.get(&format!("/runs/{id}/jobs?from=1&limit=1")).await;
    assert_eq!(
        (jobs.as_array().unwrap().len(), &jobs[0]["name"], &jobs[0]["outputs"]),
        (1, &json!("b"), &json!({"k": "v"}))
    );
    let (_, job) = server.get(&format!("/jobs/{}", jobs[0]["id"].as_str().unwrap())).await;
    assert_eq!(job["run"], json!({"id": id, "name": "b"}));
    let (_, shown) = server.get(&format!("/runs/{id}/plan")).await;
    assert_eq!((&shown["name"], shown["jobs"].as_array().unwrap().len()), (&json!("w"), 3));
    let (status, artifacts) = server.get(&format!("/runs/{id}/artifacts")).await;
    assert_eq!((status.as_u16(), artifacts), (200, json!([])));
    assert!(server.metrics().await.contains(r#"executr_runs{state="completed"} 1"#));
}

#[tokio::test]
async fn a_run_is_cancelled_and_repeated() {
    let server = Server::start().await;
    let id = submit(&server, &[("a", &[]), ("b", &[0])]).await;
    let mut worker = report("w");
    server.take(&mut worker).await;
    let (status, run) = server.send(Method::POST, &format!("/runs/{id}/cancel"), None).await;
    assert_eq!((status.as_u16(), &run["state"]), (202, &json!("cancelling")));
    let (status, error) = server.send(Method::POST, &format!("/runs/{id}/rerun?scope=failed"), None).await;
    assert_eq!((status.as_u16(), &error["code"]), (409, &json!("conflict")));
    worker.sequence += 1;
    let fence = worker.held.pop().unwrap();
    let lease = executr_api::Lease {
        fence,
        spec: executr_spec::SpecJson::from_text("{}".to_owned()).unwrap(),
        token: String::new(),
        run: None,
    };
    worker.finished = vec![AttemptResult { outcome: Outcome::Cancelled, ..success(&lease) }];
    server.exchange(&worker).await;
    let (status, run) = server.send(Method::POST, &format!("/runs/{id}/cancel"), None).await;
    assert_eq!((status.as_u16(), &run["state"]), (200, &json!("cancelled")));
    for (scope, state) in [("", "running"), ("?scope=all", "running"), ("?scope=failed", "running")] {
        let (status, again) = server.send(Method::POST, &format!("/runs/{id}/rerun{scope}"), None).await;
        assert_eq!((status.as_u16(), &again["state"], &again["rerun_of"]), (201, &json!(state), &json!(id)));
    }
    let (_, runs) = server.get("/runs?state=running&name=w&limit=2").await;
    assert_eq!(runs.as_array().unwrap().len(), 2);
    let (_, runs) = server.get(&format!("/runs?before={}", runs[1]["id"].as_str().unwrap())).await;
    assert_eq!(runs.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn what_is_wrong_with_a_plan_or_a_request_is_told() {
    let server = Server::start().await;
    let (status, error) = server.post("/workflows", plan(&[("a", &[]), ("a", &[])])).await;
    assert_eq!((status.as_u16(), &error["context"]["field"]), (400, &json!("jobs[1].name")));
    let (status, error) = server.post("/workflows", json!({"plan": {"name": "w", "jobs": [{"name": 7}]}})).await;
    assert_eq!((status.as_u16(), &error["context"]["field"]), (400, &json!("plan.jobs[0].name")));
    let id = submit(&server, &[("a", &[])]).await;
    for path in ["events?after=-1", "jobs?from=x", "jobs?limit=1001", "artifacts?limit=10001", "wait?timeout=x"] {
        assert_eq!(server.get(&format!("/runs/{id}/{path}")).await.0, 400, "{path}");
    }
    for path in ["/runs?state=odd", "/runs?limit=1001", "/runs?before=x", "/artifacts?limit=10001"] {
        assert_eq!(server.get(path).await.0, 400, "{path}");
    }
    let request = server.request(Method::GET, &format!("/runs/{id}/events")).header("last-event-id", "1:2");
    assert_eq!(request.send().await.unwrap().status(), 400);
    let (status, _) = server.send(Method::POST, &format!("/runs/{id}/rerun?scope=some"), None).await;
    assert_eq!(status, 400);
}
