//! Every call there is, once.

use std::time::Duration;

use bytes::Bytes;
use executr_api::{
    CancelWait, Client, CreateToken, ErrorCode, JobQuery, JobState, JobStatus, Outcome, Role, Submission, Verdict,
    WorkerApi,
};
use executr_client::{ClientOptions, HttpClient};
use executr_spec::{Digest, JobId, Step, StepCommand};
use futures_util::{StreamExt, stream};
use tokio::time::timeout;

use crate::server::{PATIENCE, Server};
use crate::work::Worker;

fn job() -> Submission {
    let step = Step::new(StepCommand::Run("true".to_owned()));
    Submission { steps: Some(vec![step]), ..Submission::default() }
}

#[tokio::test]
async fn the_example_runs_and_shows_what_the_job_writes() {
    let server = Server::start().await;
    let client = server.client();
    let mut out = Vec::new();
    let work = async {
        let mut worker = Worker::new(server.client());
        let lease = worker.take().await;
        worker.append(&lease, 0, b"hello\n").await;
        worker.append(&lease, 6, b"done\n").await;
        worker.finish(lease.fence, Outcome::Succeeded, 11).await;
    };
    let example = crate::submit::run(&client, "echo hello; echo done", &mut out);
    let (status, ()) = timeout(PATIENCE, async { tokio::join!(example, work) }).await.unwrap();
    assert_eq!(status.unwrap(), JobStatus::Completed);
    assert_eq!(out, b"hello\ndone\n");
}

#[tokio::test]
async fn jobs_are_submitted_listed_waited_for_and_cancelled() {
    let server = Server::start().await;
    let client = server.client();
    let first = client.submit(job()).await.unwrap();
    assert_eq!(first.state, JobState::Ready);
    let rest = client.submit_bulk(vec![job(), job()]).await.unwrap();
    assert_eq!(rest.len(), 2);
    let listed = client.jobs(JobQuery { limit: Some(2), ..JobQuery::default() }).await.unwrap();
    assert_eq!(listed.iter().map(|job| job.id).collect::<Vec<_>>(), [rest[1].id, rest[0].id]);
    let all = JobQuery {
        status: Some(JobStatus::Pending),
        job_type: Some("command".parse().unwrap()),
        priority: Some(first.priority),
        queue: Some("default".parse().unwrap()),
        before: Some(rest[1].id),
        offset: 1,
        ..JobQuery::default()
    };
    assert_eq!(client.jobs(all).await.unwrap().iter().map(|job| job.id).collect::<Vec<_>>(), [first.id]);
    assert_eq!(client.stats().await.unwrap().jobs_by_status["pending"], 3);

    let pending = client.wait(first.id, Duration::from_millis(20)).await.unwrap();
    assert_eq!(pending.status, JobStatus::Pending);
    client.cancel_pending(rest[0].id).await.unwrap();
    assert_eq!(client.cancel_pending(rest[0].id).await.unwrap_err().code, ErrorCode::BadRequest);
    let answer = client.cancel_bulk(vec![rest[0].id, rest[1].id]).await.unwrap();
    assert_eq!((answer.cancelled, answer.failed), (1, 1));

    let mut worker = Worker::new(server.client());
    let lease = worker.take().await;
    assert_eq!(lease.fence.job, first.id);
    assert_eq!(client.cancel(first.id, CancelWait::No).await.unwrap().state, JobState::Cancelling);
    assert_eq!(worker.exchange().await.cancels, [lease.fence]);
    let waiting = client.cancel(first.id, CancelWait::AtMost(PATIENCE));
    let finished = worker.finish(lease.fence, Outcome::Cancelled, 0);
    let (cancelled, orders) = timeout(PATIENCE, async { tokio::join!(waiting, finished) }).await.unwrap();
    assert_eq!(cancelled.unwrap().state, JobState::Cancelled);
    assert_eq!(orders.verdicts[0].verdict, Verdict::Accepted);
    let view = client.job(first.id).await.unwrap();
    assert_eq!(view.attempts.map(|attempts| attempts.len()), Some(1));
    assert_eq!(client.job(JobId(uuid())).await.unwrap_err().code, ErrorCode::NotFound);
}

fn uuid() -> uuid::Uuid {
    uuid::Uuid::from_u128(7)
}

#[tokio::test]
async fn blobs_go_there_and_come_back() {
    let server = Server::start().await;
    let client = server.client();
    let bytes: Vec<u8> = (0..2_500_000_u32).map(|n| (n % 253) as u8).collect();
    let digest = Digest::of(&bytes);
    assert!(!client.has_blob(digest).await.unwrap());
    let parts = bytes.chunks(700_000).map(|part| Ok(Bytes::copy_from_slice(part))).collect::<Vec<_>>();
    Client::put_blob(&client, digest, stream::iter(parts).boxed()).await.unwrap();
    assert!(client.has_blob(digest).await.unwrap());
    for offset in [0, 1, 1_048_576, 2_499_999, 2_500_000] {
        let mut read = Vec::new();
        let mut blob = client.blob(digest, offset, "").await.unwrap();
        while let Some(part) = blob.next().await {
            read.extend_from_slice(&part.unwrap());
        }
        assert!(read == bytes[offset as usize..], "{offset}");
    }
    let other = Digest::of(b"other");
    assert_eq!(Client::missing_blobs(&client, vec![digest, other]).await.unwrap(), [other]);
    let mut read = client.read_blob(digest, 2_499_998).await.unwrap();
    assert_eq!(read.next().await.unwrap().unwrap(), bytes[2_499_998..]);
    let missing = client.blob(Digest::of(b"other"), 0, "").await.map(|_| ()).unwrap_err();
    assert_eq!(missing.code, ErrorCode::NotFound);
    let wrong =
        Client::put_blob(&client, Digest::of(b"other"), stream::iter([Ok(Bytes::from_static(b"x"))]).boxed()).await;
    assert_eq!(wrong.unwrap_err().code, ErrorCode::BadRequest);
}

#[tokio::test]
async fn an_attempt_brings_what_it_made_while_it_has_its_lease() {
    let server = Server::start().await;
    server.client().submit(job()).await.unwrap();
    let mut worker = Worker::new(server.client());
    let lease = worker.take().await;
    let digest = Digest::of(b"made");
    let missing = |asked| WorkerApi::missing_blobs(&worker.client, &lease.fence, &lease.token, asked);
    assert_eq!(missing(vec![digest]).await.unwrap(), [digest]);
    let made = || stream::iter([Ok(Bytes::from_static(b"made"))]).boxed();
    WorkerApi::put_blob(&worker.client, &lease.fence, &lease.token, digest, made()).await.unwrap();
    assert_eq!(missing(vec![digest]).await.unwrap(), []);
    worker.finish(lease.fence, Outcome::Succeeded, 0).await;
    let late = WorkerApi::put_blob(&worker.client, &lease.fence, &lease.token, Digest::of(b"late"), made()).await;
    assert_eq!(late.unwrap_err().code, ErrorCode::LeaseLost);
}

#[tokio::test]
async fn an_upload_whose_source_fails_says_why() {
    let server = Server::start().await;
    let broken = executr_api::ApiError::new(ErrorCode::Conflict, "the disk is gone");
    let parts = stream::iter([Ok(Bytes::from_static(b"begun")), Err(broken.clone())]);
    let error = Client::put_blob(&server.client(), Digest::of(b"whole"), parts.boxed()).await.unwrap_err();
    assert_eq!(error, broken);
}

#[tokio::test]
async fn tokens_are_made_used_and_revoked() {
    let server = Server::start().await;
    let made = |role| CreateToken { role, name: None, tenant: None, expires_at: None };
    let admin = server.client().create_token(made(Role::Admin)).await.unwrap();
    let with = |secret: &str| {
        HttpClient::new(ClientOptions::new(format!("http://{}", server.address)).with_token(secret)).unwrap()
    };
    assert_eq!(server.client().stats().await.unwrap_err().code, ErrorCode::Unauthorized);
    let client = with(&admin.secret);
    let reader = client.create_token(made(Role::Read)).await.unwrap();
    assert_eq!(with(&reader.secret).submit(job()).await.unwrap_err().code, ErrorCode::Forbidden);
    assert_eq!(client.tokens().await.unwrap().len(), 2);
    client.revoke_token(reader.token.id).await.unwrap();
    assert_eq!(with(&reader.secret).stats().await.unwrap_err().code, ErrorCode::Unauthorized);
    assert!(!format!("{client:?}").contains(&admin.secret), "a token never stands in a log");
}
