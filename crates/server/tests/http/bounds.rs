//! What one request may take.

use std::time::Duration;

use bytes::Bytes;
use executr_server::Limits;
use futures_util::{StreamExt, stream};
use reqwest::{Body, Method};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::running::{PATIENCE, Server, Setup, read};

fn small() -> Limits {
    Limits { json: 1_000, results: 2_000, output: 1_000, bulk: 4_000, bulk_together: 4_000, ..Limits::default() }
}

#[tokio::test]
async fn bodies_that_are_too_large_are_refused_announced_or_not() {
    let server = Server::with(Setup { limits: small(), ..Setup::default() }).await;
    let id = "00000000-0000-0000-0000-000000000000";
    let append = format!("/worker/jobs/{id}/output?attempt=1&lease={id}&offset=0");
    for (method, path, limit) in [
        (Method::POST, "/jobs", "1000"),
        (Method::POST, "/jobs/bulk", "4000"),
        (Method::POST, "/jobs/bulk/cancel", "4000"),
        (Method::POST, "/workflows", "4000"),
        (Method::POST, "/jobs/claim", "1000"),
        (Method::POST, "/worker/exchange", "2000"),
        (Method::PUT, &format!("/jobs/{id}/complete"), "2000"),
        (Method::POST, &append, "1000"),
        (Method::POST, "/admin/tokens", "1000"),
    ] {
        let pieces = stream::iter((0..50).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 100]))));
        for body in [Body::from(vec![b' '; 5_000]), Body::wrap_stream(pieces)] {
            let (status, body) = read(server.request(method.clone(), path).body(body)).await;
            assert_eq!(status, 413, "{method} {path}: {body}");
            assert_eq!((&body["code"], &body["context"]["limit"]), (&json!("too_large"), &json!(limit)));
        }
    }
}

#[tokio::test]
async fn a_bulk_submission_has_a_bounded_number_of_jobs() {
    let coordinator = executr_coordinator::Options { max_bulk: 3, ..Default::default() };
    let server = Server::with(Setup { coordinator, ..Setup::default() }).await;
    let jobs = |count| Value::Array(vec![json!({"steps": [{"run": "true"}]}); count]);
    let (status, body) = server.post("/jobs/bulk", jobs(3)).await;
    assert_eq!((status.as_u16(), body.as_array().map(Vec::len)), (201, Some(3)));
    assert_eq!(server.post("/jobs/bulk", jobs(4)).await.0, 400);
}

#[tokio::test]
async fn a_plan_has_a_bounded_number_of_jobs() {
    let server = Server::start().await;
    let job = r#"{"name":"a","spec":{"steps":[]}}"#;
    let jobs = vec![job; executr_spec::workflow::MAX_RUN_JOBS + 1].join(",");
    let body = format!(r#"{{"plan":{{"name":"w","jobs":[{jobs}]}}}}"#);
    let (status, body) = read(server.request(Method::POST, "/workflows").body(body)).await;
    assert_eq!(status, 400);
    assert!(body["error"].as_str().unwrap().contains("at most 100000 jobs"), "{body}");
}

#[tokio::test]
async fn bulk_bodies_wait_for_each_other_rather_than_fill_the_memory() {
    let limits = Limits { bulk: 4 << 10, bulk_together: 2 << 10, ..Limits::default() };
    let server = Server::with(Setup { limits, ..Setup::default() }).await;
    let body = serde_json::to_vec(&vec![json!({"steps": [{"run": "true"}]}); 100]).unwrap();
    let answers = stream::iter(0..8)
        .map(|_| read(server.request(Method::POST, "/jobs/bulk").body(body.clone())))
        .buffer_unordered(8)
        .map(|(status, _)| status.as_u16())
        .collect::<Vec<_>>();
    assert_eq!(timeout(PATIENCE, answers).await.unwrap(), [201; 8]);
}

#[tokio::test]
async fn a_body_that_never_comes_is_given_up() {
    let limits = Limits { request_time: Duration::from_millis(200), ..Limits::default() };
    let server = Server::with(Setup { limits, ..Setup::default() }).await;
    let (status, body) = read(
        server
            .request(Method::POST, "/jobs")
            .body(Body::wrap_stream(stream::pending::<Result<Bytes, std::io::Error>>())),
    )
    .await;
    assert!([408, 504].contains(&status.as_u16()), "{status}");
    assert_eq!(body["code"], "timeout");
}

#[tokio::test]
async fn a_head_that_never_comes_ends_the_connection() {
    let limits = Limits { header_time: Duration::from_millis(200), ..Limits::default() };
    let server = Server::with(Setup { limits, ..Setup::default() }).await;
    for begun in [&b""[..], b"GET /api/v1/hea"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(begun).await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection is closed").unwrap();
    }
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_a_place() {
    let limits = Limits { connections: 1, ..Limits::default() };
    let server = Server::with(Setup { limits, ..Setup::default() }).await;
    let mut first = TcpStream::connect(server.address).await.unwrap();
    let mut second = TcpStream::connect(server.address).await.unwrap();
    let request = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    second.write_all(request).await.unwrap();
    // The first has the only place; it is asked something, answered, and closed. Then the second is answered.
    first.write_all(request).await.unwrap();
    for stream in [&mut first, &mut second] {
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}
