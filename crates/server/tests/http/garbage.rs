//! Garbage to every route there is, from the document that lists them.

use std::time::Duration;

use executr_api::ApiError;
use executr_server::{Limits, openapi_document};
use reqwest::Method;
use serde_json::Value;
use tokio::time::timeout;

use crate::running::{PATIENCE, Server, Setup};

const NONE: &str = "00000000-0000-0000-0000-000000000000";

/// Every method and path.
fn routes() -> Vec<(Method, String, bool)> {
    let document = openapi_document();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if let Ok(method) = method.to_uppercase().parse::<Method>()
                && operation.get("responses").is_some()
            {
                let path = path.strip_prefix("/api/v1").unwrap().to_owned();
                routes.push((method, path, operation.get("requestBody").is_some()));
            }
        }
    }
    assert!(routes.len() > 25, "{routes:?}");
    routes
}

fn bodies() -> Vec<Vec<u8>> {
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    vec![
        Vec::new(),
        b"{".to_vec(),
        b"null".to_vec(),
        b"[[]]".to_vec(),
        br#"{"type":{"a":[1e999]}}"#.to_vec(),
        br#"{"executor_id":7,"job_ids":{},"role":[],"worker":1}"#.to_vec(),
        b"\xff\xfe\x00\x01 not text".to_vec(),
        deep,
        b"a=b&c=d".to_vec(),
    ]
}

#[tokio::test]
async fn garbage_is_answered_with_an_error_and_never_with_a_fault() {
    let limits = Limits { request_time: Duration::from_secs(5), wait_time: Duration::ZERO, ..Limits::default() };
    let server = Server::with(Setup { limits, ..Setup::default() }).await;
    for (method, path, has_body) in routes() {
        let variable = path.contains('{');
        let at = |value: &str| {
            let start = path.find('{').unwrap_or(path.len());
            let end = path.find('}').map_or(path.len(), |end| end + 1);
            format!("{}{value}{}", &path[..start], &path[end..])
        };
        let mut requests = Vec::new();
        if has_body {
            let value = if path.starts_with("/blobs") { "0".repeat(64) } else { NONE.to_owned() };
            requests.extend(bodies().into_iter().map(|body| (at(&value), body)));
        }
        if variable {
            for value in ["x", "%00", "..%2f..%2fetc%2fpasswd", "%ff%fe", &"9".repeat(5_000), "-1", "null"] {
                requests.push((at(value), b"{}".to_vec()));
            }
        }
        for query in ["offset=-1", "limit=x&follow=maybe&timeout=x&wait=x&offset=x&attempt=x&stream=x", "lease=%ff"] {
            if variable || has_body {
                requests.push((format!("{}?{query}", at("not-an-id")), b"{\"garbage\":true}".to_vec()));
            }
        }
        for (path, body) in requests {
            let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
            let request = server.request(method.clone(), &path).body(body);
            let response = timeout(PATIENCE, request.send()).await.expect("an answer").unwrap();
            let status = response.status();
            let body = response.bytes().await.unwrap();
            assert!(status.is_client_error(), "{method} {path} {shown}: {status}");
            if method != Method::HEAD {
                let error: Result<ApiError, _> = serde_json::from_slice(&body);
                assert!(error.is_ok_and(|error| !error.message.is_empty()), "{method} {path} {shown}: {body:?}");
            }
        }
    }
    assert_eq!(server.get("/jobs").await.1, Value::Array(vec![]), "none of it was taken for a job");
}

#[tokio::test]
async fn what_is_no_http_ends_the_connection_alone() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = Server::start().await;
    for bytes in
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0\0\0\0\r\n\r\n"]
    {
        let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // How it ends doesn't matter, that it ends does.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end");
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{:?}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(server.get("/health").await.0, 200);
}
