//! Tokens and what they open.

use executr_api::output::{RecordWriter, Stream};
use executr_spec::Digest;
use reqwest::Method;
use serde_json::{Value, json};

use crate::running::{Server, Setup, finish, read, report, success};

async fn token(server: &Server, role: &str, tenant: &str) -> (String, String) {
    let (status, made) = server.post("/admin/tokens", json!({"role": role, "tenant": tenant})).await;
    assert_eq!(status, 201, "{made}");
    let text = |field: &str| made[field].as_str().unwrap().to_owned();
    (text("id"), text("secret"))
}

#[tokio::test]
async fn each_role_opens_its_routes_and_no_others() {
    let server = Server::start().await;
    let (_, admin) = token(&server, "admin", "default").await;
    server.set_token(Some(&admin));
    let mut tokens = vec![("admin", admin.clone())];
    for role in ["submit", "read", "execute"] {
        tokens.push((role, token(&server, role, "default").await.1));
    }
    let job = json!({"steps": [{"run": "true"}]});
    let mut beat = report("w");
    beat.wait_ms = 0;
    let beat = serde_json::to_value(&beat).unwrap();
    let (_, run) = server.post("/workflows", crate::runs::plan(&[("a", &[])])).await;
    let run = |rest: &str| format!("/runs/{}{rest}", run["id"].as_str().unwrap());
    let [jobs, events, cancel, rerun] = ["/jobs", "/events", "/cancel", "/rerun"].map(run);
    let calls: [(Method, &str, Option<Value>, &[&str]); 15] = [
        (Method::POST, "/workflows", Some(crate::runs::plan(&[("a", &[])])), &["admin", "submit"]),
        (Method::GET, "/runs", None, &["admin", "submit", "read"]),
        (Method::GET, "/artifacts", None, &["admin", "submit", "read"]),
        (Method::GET, &jobs, None, &["admin", "submit", "read"]),
        (Method::GET, &events, None, &["admin", "submit", "read"]),
        (Method::POST, &cancel, None, &["admin", "submit"]),
        (Method::POST, &rerun, None, &["admin", "submit"]),
        (Method::GET, "/jobs", None, &["admin", "submit", "read"]),
        (Method::GET, "/admin/stats", None, &["admin", "submit", "read"]),
        (Method::GET, "/metrics", None, &["admin", "submit", "read"]),
        (Method::POST, "/jobs", Some(job.clone()), &["admin", "submit"]),
        (Method::POST, "/jobs/bulk", Some(json!([job])), &["admin", "submit"]),
        (Method::POST, "/worker/exchange", Some(beat), &["admin", "execute"]),
        (Method::POST, "/jobs/claim", Some(json!({"executor_id": "w-2"})), &["admin", "execute"]),
        (Method::GET, "/admin/tokens", None, &["admin"]),
    ];
    for (method, path, body, allowed) in calls {
        for (role, secret) in &tokens {
            let mut request = server.request(method.clone(), path);
            if let Some(body) = &body {
                request = request.json(body);
            }
            let status = request_with_only(request, secret).await;
            if allowed.contains(role) {
                assert!((200..300).contains(&status), "{role} {method} {path}: {status}");
            } else {
                assert_eq!(status, 403, "{role} {method} {path}");
            }
        }
    }
}

/// Sends `request` with no other token than `secret`.
async fn request_with_only(request: reqwest::RequestBuilder, secret: &str) -> u16 {
    let (client, request) = request.build_split();
    let mut request = request.unwrap();
    let value = format!("Bearer {secret}").parse().unwrap();
    request.headers_mut().insert("authorization", value);
    client.execute(request).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn no_token_a_wrong_one_and_a_revoked_one_are_refused() {
    let server = Server::start().await;
    let (_, admin) = token(&server, "admin", "default").await;
    let (status, body) = server.get("/jobs").await;
    assert_eq!((status.as_u16(), &body["code"]), (401, &json!("unauthorized")));

    server.set_token(Some(&admin));
    let (id, reader) = token(&server, "read", "default").await;
    server.set_token(Some(&reader));
    assert_eq!(server.get("/jobs").await.0, 200);
    server.set_token(Some(&admin));
    assert_eq!(server.delete(&format!("/admin/tokens/{id}")).await.0, 204);
    assert_eq!(server.delete(&format!("/admin/tokens/{id}")).await.0, 404);
    server.set_token(Some(&reader));
    assert_eq!(server.get("/jobs").await.0, 401);
    server.set_token(Some("executr_wrong"));
    assert_eq!(server.get("/jobs").await.0, 401);
    server.set_token(None);
    let (status, _) = read(server.request(Method::GET, "/jobs").header("authorization", "Basic abc")).await;
    assert_eq!(status, 401);
    // What a load balancer asks stays open.
    assert_eq!(server.get("/health").await.0, 200);
}

#[tokio::test]
async fn without_tokens_nothing_is_open_unless_the_operator_says_so() {
    let server = Server::with(Setup { allow_anonymous: false, ..Setup::default() }).await;
    assert_eq!(server.get("/jobs").await.0, 401);
    assert_eq!(server.get("/health").await.0, 200);
}

#[tokio::test]
async fn a_web_page_can_not_submit_to_a_server_without_tokens() {
    let server = Server::start().await;
    let request = server.request(Method::POST, "/jobs").header("origin", "https://evil.example");
    let (status, body) = read(request.json(&json!({"steps": [{"run": "true"}]}))).await;
    assert_eq!(status, 403, "{body}");
}

#[tokio::test]
async fn a_server_without_tokens_answers_to_no_name_of_somebody_else() {
    let server = Server::start().await;
    let asked_as = |host: &str| read(server.request(Method::GET, "/jobs").header("host", host));
    let port = server.address.port();
    assert_eq!(asked_as(&format!("localhost:{port}")).await.0, 200);
    assert_eq!(asked_as(&format!("evil.example:{port}")).await.0, 403);
    let (_, admin) = token(&server, "admin", "default").await;
    server.set_token(Some(&admin));
    let request = server.request(Method::GET, "/jobs").header("host", "executr.example");
    assert_eq!(read(request).await.0, 200, "whoever has a token may call it anything");
}

#[tokio::test]
async fn secrets_are_shown_once() {
    let server = Server::start().await;
    let (_, admin) = token(&server, "admin", "default").await;
    server.set_token(Some(&admin));
    let (_, tokens) = server.get("/admin/tokens").await;
    assert_eq!(tokens.as_array().map(Vec::len), Some(1));
    assert!(!tokens.to_string().contains(&admin), "{tokens}");
}

#[tokio::test]
async fn tenants_have_idempotency_keys_of_their_own() {
    let server = Server::start().await;
    let (_, admin) = token(&server, "admin", "default").await;
    server.set_token(Some(&admin));
    let (_, one) = token(&server, "submit", "one").await;
    let (_, two) = token(&server, "submit", "two").await;
    let mut ids = Vec::new();
    for secret in [&one, &one, &two] {
        server.set_token(Some(secret));
        let (status, job) = server.post("/jobs", json!({"steps": [{"run": "true"}], "idempotency_key": "k"})).await;
        assert_eq!(status, 201, "{job}");
        ids.push(job["id"].clone());
    }
    assert_eq!(ids[0], ids[1]);
    assert_ne!(ids[0], ids[2]);
}

#[tokio::test]
async fn a_jobs_own_token_opens_its_output_alone_and_dies_with_the_lease() {
    let server = Server::start().await;
    let (_, admin) = token(&server, "admin", "default").await;
    server.set_token(Some(&admin));
    let (first, second) = (server.submit().await, server.submit().await);
    let mut worker = report("w");
    let leases = [server.take(&mut worker).await];
    let lease = &leases[0];
    assert!(!lease.token.is_empty(), "a server with tokens gives each job one");
    let other = if lease.fence.job == first.id { second.id } else { first.id };

    server.set_token(Some(&lease.token));
    let mut writer = RecordWriter::default();
    writer.push(Stream::Stdout, b"hello");
    let records = writer.take().as_bytes().clone();
    let append = |job, attempt| {
        let query = format!("attempt={attempt}&lease={}&offset=0", lease.fence.lease);
        server.request(Method::POST, &format!("/worker/jobs/{job}/output?{query}")).body(records.clone())
    };
    assert_eq!(read(append(lease.fence.job, 1)).await, (reqwest::StatusCode::OK, json!({"end": 5})));
    assert_eq!(read(append(other, 1)).await.0, 403);
    assert_eq!(read(append(lease.fence.job, 2)).await.0, 403);

    let digest = Digest::of(b"made");
    let under = |job, attempt| format!("job={job}&attempt={attempt}&lease={}", lease.fence.lease);
    let put = |query| server.request(Method::PUT, &format!("/worker/blobs/{digest}?{query}")).body("made");
    let ask = |query| {
        let request = server.request(Method::POST, &format!("/worker/blobs/missing?{query}"));
        request.json(&json!({"digests": [digest]}))
    };
    assert_eq!(read(ask(under(lease.fence.job, 1))).await.1, json!({"digests": [digest]}));
    assert_eq!(read(put(under(other, 1))).await.0, 403);
    assert_eq!(read(put(under(lease.fence.job, 1))).await.0, 201);
    assert_eq!(read(ask(under(lease.fence.job, 1))).await.1, json!({"digests": []}));

    let own = server.request(Method::GET, &format!("/jobs/{}/output", lease.fence.job)).send().await.unwrap();
    assert_eq!(own.bytes().await.unwrap(), "hello");
    assert_eq!(server.get(&format!("/jobs/{other}/output")).await.0, 403);
    for (method, path) in [(Method::GET, "/jobs"), (Method::POST, "/jobs"), (Method::GET, "/admin/tokens")] {
        assert_eq!(server.send(method, path, None).await.0, 403);
    }

    server.set_token(Some(&admin));
    finish(&server, &mut worker, success(lease)).await;
    server.set_token(Some(&lease.token));
    let (status, body) = read(append(lease.fence.job, 1)).await;
    assert_eq!((status.as_u16(), &body["code"]), (409, &json!("lease_lost")));
    assert_eq!(read(put(under(lease.fence.job, 1))).await.0, 409);
    assert_eq!(read(ask(under(lease.fence.job, 1))).await.0, 409);
    assert_eq!(server.get(&format!("/jobs/{}/output", lease.fence.job)).await.0, 401);
    server.set_token(Some("executr-job-nonsense"));
    assert_eq!(read(append(lease.fence.job, 1)).await.0, 401);
}
