//! Every failure is an error as the API has them.

use executr_api::ApiError;
use reqwest::Method;
use serde_json::{Value, json};

use crate::running::{Server, read};

fn error(body: &Value) -> ApiError {
    serde_json::from_value(body.clone()).unwrap_or_else(|error| panic!("{error}: {body}"))
}

#[tokio::test]
async fn unknown_routes_and_wrong_methods_are_told_apart() {
    let server = Server::start().await;
    let (status, body) = server.get("/nonsense").await;
    assert_eq!(status, 404);
    assert!(error(&body).message.contains("/api/v1/nonsense"), "{body}");
    let (status, body) = server.send(Method::PATCH, "/jobs", None).await;
    assert_eq!(status, 405);
    assert!(error(&body).message.contains("PATCH"), "{body}");
}

#[tokio::test]
async fn wrong_json_is_answered_with_where_it_is_wrong() {
    let server = Server::start().await;
    let broken = server.request(Method::POST, "/jobs").body("{\"type\":\n oops}");
    let (status, body) = read(broken).await;
    assert_eq!(status, 400);
    assert_eq!(error(&body).context["line"], "2");

    let (status, body) = server.post("/jobs", json!({"steps": [{"run": "x"}], "priority": "urgent"})).await;
    assert_eq!(status, 400);
    assert_eq!(error(&body).context["field"], "priority");

    let (status, body) = server.post("/jobs", json!({"steps": [{"run": "x"}], "type": "two words"})).await;
    assert_eq!(status, 400);
    assert!(error(&body).message.contains("use no spaces"), "{body}");
}

#[tokio::test]
async fn wrong_paths_and_queries_name_what_is_wrong() {
    let server = Server::start().await;
    for path in ["/jobs/7", "/jobs?limit=many", "/jobs?status=lost", "/jobs?limit=1001", "/blobs/abc", "/jobs/%ff"] {
        let (status, body) = server.get(path).await;
        assert_eq!(status, 400, "{path}: {body}");
        assert!(!error(&body).message.is_empty());
    }
    let id = "00000000-0000-0000-0000-000000000000";
    for path in [format!("/jobs/{id}"), format!("/jobs/{id}/wait"), format!("/jobs/{id}/output")] {
        let (status, body) = server.get(&path).await;
        assert_eq!(status, 404, "{path}: {body}");
        assert_eq!(error(&body).code, executr_api::ErrorCode::NotFound);
    }
}

#[tokio::test]
async fn requests_have_ids_and_keep_those_they_came_with() {
    let server = Server::start().await;
    let answered = |id: Option<&'static str>| {
        let request = server.request(Method::GET, "/health");
        let request = match id {
            Some(id) => request.header("x-request-id", id),
            None => request,
        };
        async move { request.send().await.unwrap().headers()["x-request-id"].to_str().unwrap().to_owned() }
    };
    assert_eq!(answered(Some("abc-1")).await, "abc-1");
    assert_ne!(answered(Some("two words")).await, "two words");
    assert_ne!(answered(None).await, answered(None).await);
}

#[tokio::test]
async fn health_is_answered_inside_and_outside_the_prefix() {
    let server = Server::start().await;
    let (status, body) = server.get("/health").await;
    assert_eq!((status.as_u16(), body), (200, json!({"status": "healthy", "database": "connected"})));
    for path in ["livez", "readyz"] {
        let request = crate::running::plain_client().get(format!("http://{}/{path}", server.address));
        assert_eq!(read(request).await.0, 200, "{path}");
    }
}
