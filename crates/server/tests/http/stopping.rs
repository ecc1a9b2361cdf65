//! Graceful shutdown.

use std::time::Duration;

use executr_server::Limits;
use reqwest::Method;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::running::{PATIENCE, Server, Setup, report};

#[tokio::test]
async fn held_requests_are_answered_and_new_ones_are_not_accepted() {
    let server = Server::start().await;
    let job = server.submit().await;
    let mut idle = report("w");
    // Serves another queue, so that there is nothing for it.
    idle.worker.queues[0].queue = "other".parse().unwrap();
    idle.wait_ms = 60_000;
    let exchange = server.request(Method::POST, "/worker/exchange").json(&idle).send();
    let wait = server.request(Method::GET, &format!("/jobs/{}/wait?timeout=60s", job.id)).send();
    let follow = server
        .request(Method::GET, &format!("/jobs/{}/output?follow=true", job.id))
        .header("accept", "text/event-stream")
        .send();
    let stop = async {
        // All three are inside once the worker is known.
        while !server.metrics().await.contains("executr_executor_heartbeats_total 1") {
            tokio::task::yield_now().await;
        }
        server.stop.cancel();
    };
    let (exchange, wait, follow, ()) =
        timeout(PATIENCE, async { tokio::join!(exchange, wait, follow, stop) }).await.unwrap();
    for response in [exchange, wait, follow].into_iter().flatten() {
        // A wait may have come too late to be let in; what was let in is answered well.
        assert!(response.status() == 200 || response.status() == 503, "{response:?}");
        response.bytes().await.unwrap();
    }
    timeout(PATIENCE, server.task).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_broken_off() {
    let limits = Limits { shutdown_time: Duration::from_millis(50), ..Limits::default() };
    let server = Server::with(Setup { limits, ..Setup::default() }).await;
    let body = futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>();
    let request = server.request(Method::POST, "/jobs").body(reqwest::Body::wrap_stream(body));
    let sent = tokio::spawn(request.send());
    // The connection is there once another request on its own connection has been answered after it.
    assert_eq!(server.get("/health").await.0, 200);
    server.stop.cancel();
    timeout(PATIENCE, server.task).await.unwrap().unwrap().unwrap();
    assert!(timeout(PATIENCE, sent).await.unwrap().unwrap().is_err());
}
