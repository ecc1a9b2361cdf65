//! Taking jobs in, and showing them.

use std::time::Duration;

use bytes::Bytes;
use executr_api::{Client, ErrorCode, JobQuery, JobState, Submission};
use executr_spec::Digest;
use executr_store::Store;
use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use tokio::time::sleep;

use crate::support::{Worker, client, job, plain, start, store, submit, submit_plain};

fn blob_job(digest: Digest) -> Submission {
    job(&format!(
        r#"{{"type":"t","binary_url":"blob:{digest}","binary_sha256":"{digest}","arguments":["a"],"env_variables":{{"K":"v"}}}}"#
    ))
}

#[tokio::test(start_paused = true)]
async fn a_bulk_is_taken_whole_or_not_at_all() {
    let store = store();
    let coordinator = start(&store).await;
    let client = client(&coordinator);
    let wrong = job(r#"{"steps":[]}"#);
    let error = client.submit_bulk(vec![plain(), plain(), wrong]).await.unwrap_err();
    assert_eq!((error.code, error.context["index"].as_str()), (ErrorCode::BadRequest, "2"));
    assert_eq!(error.context["field"], "steps");
    assert!(client.jobs(JobQuery::default()).await.unwrap().is_empty());
    assert!(client.submit_bulk(Vec::new()).await.unwrap().is_empty());
    let error = client.submit_bulk(vec![plain(); 10_001]).await.unwrap_err();
    assert_eq!((error.code, error.context["limit"].as_str()), (ErrorCode::BadRequest, "10000"));
    assert_eq!(client.submit_bulk(vec![plain(); 100]).await.unwrap().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn one_requests_excess_of_classes_does_not_harm_those_that_came_with_it() {
    let store = store();
    let coordinator = start(&store).await;
    let client = client(&coordinator);
    let labelled = |n: usize| job(&format!(r#"{{"steps":[{{"argv":["true"]}}],"labels":{{"n":"{n}"}}}}"#));
    client.submit_bulk((0..999).map(labelled).collect()).await.unwrap();
    // While the first is in the store the other three gather.
    store.stall("submit", true);
    let requests = [vec![plain()], vec![plain(); 2], vec![plain(), labelled(5_000)], vec![plain(); 3]];
    let answers = join_all(requests.into_iter().map(|jobs| client.submit_bulk(jobs)));
    let (answers, ()) = tokio::join!(answers, async {
        crate::support::settle().await;
        store.stall("submit", false);
    });
    let counts: Vec<_> =
        answers.iter().map(|answer| answer.as_ref().map(Vec::len).map_err(|error| error.code)).collect();
    assert_eq!(counts, [Ok(1), Ok(2), Err(ErrorCode::BadRequest), Ok(3)]);
    assert_eq!(answers[2].as_ref().unwrap_err().context["index"], "1");
    assert_eq!(client.stats().await.unwrap().jobs_by_status["pending"], 999 + 6);
}

#[tokio::test(start_paused = true)]
async fn submissions_gather_while_the_store_is_busy() {
    let store = store();
    let coordinator = start(&store).await;
    let client = client(&coordinator);
    store.take_calls();
    let answers = join_all((0..500).map(|_| client.submit(plain()))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert!(store.take_calls()["submit"] <= 3);
}

#[tokio::test(start_paused = true)]
async fn a_second_submission_with_the_same_key_is_answered_with_the_first_job() {
    let store = store();
    let coordinator = start(&store).await;
    let keyed = r#"{"steps":[{"argv":["true"]}],"idempotency_key":"once"}"#;
    let first = submit(&coordinator, keyed).await;
    Worker::new("w", 1).exchange(&coordinator).await;
    let second = submit(&coordinator, keyed).await;
    assert_eq!((second.id, second.state), (first.id, JobState::Running));
    let bulk = client(&coordinator).submit_bulk(vec![job(keyed)]).await.unwrap();
    assert!(bulk[0].existing && bulk[0].id == first.id);
}

#[tokio::test(start_paused = true)]
async fn blobs_have_to_be_there_before_a_job_names_them() {
    let store = store();
    let coordinator = start(&store).await;
    let client = client(&coordinator);
    let bytes = Bytes::from_static(b"#!/bin/sh\n");
    let digest = Digest::of(&bytes);
    let error = client.submit(blob_job(digest)).await.unwrap_err();
    assert_eq!((error.code, &error.context["blob"]), (ErrorCode::BadRequest, &digest.to_string()));
    client.put_blob(digest, stream::iter([Ok(bytes)]).boxed()).await.unwrap();
    let view = client.submit(blob_job(digest)).await.unwrap();
    assert_eq!(view.binary_url.unwrap(), format!("blob:{digest}"));
    assert_eq!((view.arguments, view.env_variables["K"].as_str()), (vec!["a".to_owned()], "v"));
    let other = Digest::of(b"other");
    for (url, told) in [(format!("blob:{other}"), "names another blob"), ("blob:xyz".to_owned(), "64 hexadecimal")] {
        let spoilt = Submission { binary_url: Some(url), ..blob_job(digest) };
        let error = client.submit(spoilt).await.unwrap_err();
        assert!(error.message.contains(told), "{error}");
        assert_eq!(error.context["field"], "steps[0].binary.url");
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_job_says_what_it_waits_for() {
    let store = store();
    let coordinator = start(&store).await;
    let client = client(&coordinator);
    let id = submit(&coordinator, r#"{"steps":[{"argv":["true"]}],"queue":"night","labels":{"gpu":"a100","os":"x"}}"#)
        .await
        .id;
    let words = async || client.job(id).await.unwrap().waiting_for.unwrap();
    assert_eq!(words().await, "an executor that serves the queue `night`; none is there");
    let mut far = Worker::new("far", 1).serving(&[("night", 1)]);
    far.exchange(&coordinator).await;
    let mut near = Worker::new("near", 1).serving(&[("night", 1)]);
    near.hello.offers.labels.insert("gpu".to_owned(), "a100".to_owned());
    near.exchange(&coordinator).await;
    assert_eq!(words().await, "an executor with label os=x; none of those that serve the queue `night` has it");
    near.hello.offers.labels.insert("os".to_owned(), "x".to_owned());
    near.hello.slots = 0;
    near.exchange(&coordinator).await;
    assert_eq!(words().await, "a free slot");
    let listed = client.jobs(JobQuery::default()).await.unwrap();
    assert_eq!(listed[0].waiting_for.as_deref(), Some("a free slot"));
    sleep(Duration::from_secs(30)).await;
    assert_eq!(words().await, "an executor that serves the queue `night`; none is there", "they were not heard of");
}

#[tokio::test(start_paused = true)]
async fn lists_are_bounded() {
    let store = store();
    let coordinator = start(&store).await;
    let client = client(&coordinator);
    submit_plain(&coordinator, 150).await;
    assert_eq!(client.jobs(JobQuery::default()).await.unwrap().len(), 100);
    assert_eq!(client.jobs(JobQuery { limit: Some(1_000), ..JobQuery::default() }).await.unwrap().len(), 150);
    let error = client.jobs(JobQuery { limit: Some(1_001), ..JobQuery::default() }).await.unwrap_err();
    assert_eq!((error.code, error.context["field"].as_str()), (ErrorCode::BadRequest, "limit"));
}

#[tokio::test(start_paused = true)]
async fn attempts_show_no_lease() {
    let store = store();
    let coordinator = start(&store).await;
    let id = submit_plain(&coordinator, 1).await[0];
    let mut worker = Worker::new("w", 1);
    worker.exchange(&coordinator).await;
    let view = client(&coordinator).job(id).await.unwrap();
    let shown = serde_json::to_string(&view).unwrap();
    assert!(!shown.contains(&worker.held[0].lease.to_string()));
    let attempts = view.attempts.unwrap();
    assert_eq!(attempts[0].id, client(&coordinator).job(id).await.unwrap().attempts.unwrap()[0].id);
    assert_eq!(attempts[0].executor_id, worker.hello.id);
}

#[tokio::test(start_paused = true)]
async fn workers_are_shown_with_what_they_do() {
    let store = store();
    let (one, other) = (start(&store).await, start(&store).await);
    let id = submit(&one, r#"{"type":"nightly","steps":[{"argv":["true"]}]}"#).await.id;
    submit_plain(&one, 1).await;
    let mut worker = Worker::new("w", 3).waiting(Duration::from_secs(60));
    worker.exchange(&one).await;
    let shown = client(&one).workers().await.unwrap();
    assert_eq!((shown.len(), shown[0].running, shown[0].slots), (1, 2, 3));
    assert_eq!((shown[0].current_job_id, shown[0].job_type.as_deref()), (Some(id), Some("nightly")));
    assert_eq!(client(&one).stats().await.unwrap().active_executors, 1);
    // What was in memory only is written every few seconds.
    worker.exchange(&one).await;
    worker.exchange(&one).await;
    let elsewhere = client(&other).workers().await.unwrap();
    assert_eq!((elsewhere[0].running, elsewhere[0].current_job_id), (2, Some(id)));
    worker.end_all();
    worker.exchange(&one).await;
    assert_eq!(client(&one).workers().await.unwrap()[0].jobs_completed, 2);
    one.shutdown().await;
    assert_eq!(client(&other).workers().await.unwrap()[0].jobs_completed, 2);
    sleep(Duration::from_secs(20)).await;
    assert!(client(&other).workers().await.unwrap().is_empty());
    assert_eq!(client(&other).stats().await.unwrap().active_executors, 0);
}

#[tokio::test(start_paused = true)]
async fn old_jobs_are_deleted_and_young_ones_kept() {
    let store = store();
    let options = executr_coordinator::Options {
        retention: Duration::from_secs(1_000),
        cleanup_interval: Duration::from_secs(500),
        ..crate::support::options()
    };
    let coordinator = executr_coordinator::Coordinator::start(
        std::sync::Arc::clone(&store) as _,
        options,
        std::sync::Arc::new(executr_coordinator::Unobserved),
    )
    .await
    .unwrap();
    let old = submit_plain(&coordinator, 250).await;
    let mut worker = Worker::new("w", 250);
    worker.exchange(&coordinator).await;
    worker.end_all();
    worker.exchange(&coordinator).await;
    sleep(Duration::from_secs(900)).await;
    let young = submit_plain(&coordinator, 1).await;
    client(&coordinator).cancel_pending(young[0]).await.unwrap();
    assert!(store.job(old[0]).await.unwrap().is_some());
    sleep(Duration::from_secs(700)).await;
    for id in old {
        assert!(store.job(id).await.unwrap().is_none());
    }
    assert!(store.job(young[0]).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_list_of_large_jobs_is_cut_and_goes_on_with_the_next_page() {
    let store = store();
    let coordinator = start(&store).await;
    let client = client(&coordinator);
    let large = format!(r#"{{"steps":[{{"argv":["{}"]}}]}}"#, "x".repeat(1_000_000));
    client.submit_bulk(vec![job(&large); 20]).await.unwrap();
    let mut pages = Vec::new();
    let mut query = JobQuery { limit: Some(1_000), ..JobQuery::default() };
    loop {
        let page = client.jobs(query.clone()).await.unwrap();
        let Some(last) = page.last() else { break };
        query.before = Some(last.id);
        pages.push(page.len());
    }
    assert_eq!(pages, [9, 9, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_long_list_of_small_jobs_is_whole() {
    let store = store();
    let coordinator = start(&store).await;
    let mut ids = submit_plain(&coordinator, 450).await;
    ids.reverse();
    let query = JobQuery { limit: Some(430), offset: 10, ..JobQuery::default() };
    let listed: Vec<_> = client(&coordinator).jobs(query).await.unwrap().into_iter().map(|job| job.id).collect();
    assert_eq!(listed, ids[10..440]);
}
