//! Each metric moves when that happens which it counts.

use std::sync::Arc;
use std::time::Duration;

use executr_api::{Outcome, WorkerCounters};
use executr_store::ManualClock;
use executr_store::model::ModelStore;
use reqwest::Method;
use serde_json::json;
use tokio::time::timeout;

use crate::running::{PATIENCE, Server, Setup, finish, report, success};
use crate::runs::plan;

/// The value of the one series that begins so.
fn value(text: &str, series: &str) -> f64 {
    let lines: Vec<_> = text
        .lines()
        .filter(|line| {
            line.strip_prefix(series).is_some_and(|rest| rest.starts_with([' ', '{']) || series.ends_with('}'))
        })
        .collect();
    assert!(!lines.is_empty(), "{series} is missing in:\n{text}");
    lines.iter().map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

async fn now(server: &Server, series: &str) -> f64 {
    value(&server.metrics().await, series)
}

#[tokio::test]
async fn every_metric_of_the_original_is_there() {
    let server = Server::start().await;
    server.get("/health").await;
    let text = server.metrics().await;
    for name in [
        "executr_jobs_submitted_total",
        "executr_jobs_completed_total",
        "executr_jobs_failed_total",
        "executr_jobs_cancelled_total",
        "executr_job_duration_seconds",
        "executr_job_wait_time_seconds",
        "executr_jobs_in_queue",
        "executr_executors_active",
        "executr_executor_heartbeats_total",
        "executr_executor_jobs_claimed_total",
        "executr_binary_cache_hits_total",
        "executr_binary_cache_misses_total",
        "executr_binary_cache_size_bytes",
        "executr_binary_download_duration_seconds",
        "executr_database_queries_total",
        "executr_database_query_duration_seconds",
        "executr_database_connections",
        "executr_api_requests_total",
        "executr_api_request_duration_seconds",
        "executr_stale_jobs_recovered_total",
        "executr_old_jobs_cleaned_total",
    ] {
        assert!(text.contains(&format!("# TYPE {name} ")), "{name} is missing in:\n{text}");
    }
}

#[tokio::test]
async fn what_happens_to_jobs_moves_the_jobs_metrics() {
    let server = Server::start().await;
    let mut worker = report("w");
    server.submit().await;
    assert_eq!(now(&server, "executr_jobs_submitted_total").await, 1.0);
    assert_eq!(now(&server, "executr_jobs_in_queue").await, 1.0);

    let lease = server.take(&mut worker).await;
    let text = server.metrics().await;
    assert_eq!(value(&text, "executr_jobs_in_queue"), 0.0);
    assert_eq!(value(&text, "executr_executor_jobs_claimed_total"), 1.0);
    assert_eq!(value(&text, "executr_job_wait_time_seconds_count"), 1.0);
    assert_eq!(value(&text, "executr_executors_active"), 1.0);
    assert!(value(&text, "executr_executor_heartbeats_total") >= 1.0);

    finish(&server, &mut worker, success(&lease)).await;
    let text = server.metrics().await;
    assert_eq!(value(&text, "executr_jobs_completed_total"), 1.0);
    assert_eq!(value(&text, "executr_job_duration_seconds_count"), 1.0);

    server.submit().await;
    let lease = server.take(&mut worker).await;
    let mut result = success(&lease);
    result.outcome = Outcome::Failed;
    finish(&server, &mut worker, result).await;
    assert_eq!(now(&server, "executr_jobs_failed_total").await, 1.0);

    let job = server.submit().await;
    server.delete(&format!("/jobs/{}", job.id)).await;
    assert_eq!(now(&server, "executr_jobs_cancelled_total").await, 1.0);
}

#[tokio::test]
async fn the_end_of_a_run_moves_the_histogram_of_its_state() {
    let server = Server::start().await;
    let count = |state: &str| format!(r#"executr_run_duration_seconds_count{{state="{state}"}}"#);
    let (status, _) = server.post("/workflows", plan(&[("a", &[]), ("b", &[0])])).await;
    assert_eq!(status, 201);
    let mut worker = report("w");
    let lease = server.take(&mut worker).await;
    finish(&server, &mut worker, success(&lease)).await;
    assert_eq!(now(&server, &count("completed")).await, 0.0, "a job is left");
    let lease = server.take(&mut worker).await;
    finish(&server, &mut worker, success(&lease)).await;
    let text = server.metrics().await;
    assert_eq!((value(&text, &count("completed")), value(&text, &count("failed"))), (1.0, 0.0));
    assert!(value(&text, r#"executr_run_duration_seconds_sum{state="completed"}"#) > 0.0);

    let (_, run) = server.post("/workflows", plan(&[("a", &[])])).await;
    let cancel = format!("/runs/{}/cancel", run["id"].as_str().unwrap());
    assert_eq!(server.post(&cancel, json!({})).await.0, 200);
    server.post("/workflows", plan(&[("a", &[])])).await;
    let lease = server.take(&mut worker).await;
    let mut result = success(&lease);
    result.outcome = Outcome::Failed;
    finish(&server, &mut worker, result).await;
    let text = server.metrics().await;
    let counts = ["completed", "failed", "cancelled"].map(|state| value(&text, &count(state)));
    assert_eq!(counts, [1.0, 1.0, 1.0]);
}

#[tokio::test]
async fn what_workers_count_arrives_with_the_exchange() {
    let server = Server::start().await;
    let mut worker = report("w");
    worker.wait_ms = 0;
    for (hits, downloads) in [(2, 1), (5, 3)] {
        worker.sequence += 1;
        worker.counters = WorkerCounters {
            cache_hits: hits,
            cache_misses: downloads,
            cache_bytes: 1_000 * downloads,
            downloads,
            download_micros: 500_000 * downloads,
        };
        server.exchange(&worker).await;
    }
    let text = server.metrics().await;
    assert_eq!(value(&text, "executr_binary_cache_hits_total"), 5.0);
    assert_eq!(value(&text, "executr_binary_cache_misses_total"), 3.0);
    assert_eq!(value(&text, "executr_binary_cache_size_bytes"), 3_000.0);
    assert_eq!(value(&text, "executr_binary_download_duration_seconds_count"), 3.0);
    assert_eq!(value(&text, "executr_binary_download_duration_seconds_sum"), 1.5);
}

#[tokio::test]
async fn requests_and_database_commands_are_counted() {
    let server = Server::start().await;
    let before = now(&server, "executr_database_queries_total").await;
    server.submit().await;
    server.get("/nonsense").await;
    let text = server.metrics().await;
    let requests = |labels: &str| value(&text, &format!("executr_api_requests_total{{{labels}}}"));
    assert_eq!(requests(r#"method="POST",route="/api/v1/jobs",status="201""#), 1.0);
    assert_eq!(requests(r#"method="GET",route="unknown",status="404""#), 1.0);
    let durations = r#"executr_api_request_duration_seconds_count{method="POST",route="/api/v1/jobs"}"#;
    assert_eq!(value(&text, durations), 1.0);
    assert!(value(&text, "executr_database_queries_total") > before);
    assert!(value(&text, "executr_database_query_duration_seconds_count") > 0.0);
    let made_up = server.request(Method::from_bytes(b"BREW").unwrap(), "/jobs").send().await.unwrap();
    assert_eq!(made_up.status(), 405);
    assert!(server.metrics().await.contains(r#"method="other""#), "made-up methods make no series of their own");
}

#[tokio::test]
async fn lost_leases_and_old_jobs_are_counted() {
    let clock = ManualClock::default();
    let store = Arc::new(ModelStore::new(Arc::new(clock.clone())));
    let coordinator = executr_coordinator::Options {
        lease: Duration::from_millis(50),
        retention: Duration::from_secs(3_600),
        cleanup_interval: Duration::from_millis(20),
        ..Default::default()
    };
    let server = Server::on(store, Setup { coordinator, ..Setup::default() }).await;
    server.submit().await;
    let (mut lost, mut next) = (report("lost"), report("next"));
    server.take(&mut lost).await;
    clock.advance(Duration::from_secs(1));
    let moved = async {
        let lease = server.take(&mut next).await;
        assert_eq!(now(&server, "executr_stale_jobs_recovered_total").await, 1.0);
        finish(&server, &mut next, success(&lease)).await;
        clock.advance(Duration::from_secs(7_200));
        while now(&server, "executr_old_jobs_cleaned_total").await < 1.0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, moved).await.unwrap();
    assert_eq!(server.get("/jobs").await.1, json!([]));
}
