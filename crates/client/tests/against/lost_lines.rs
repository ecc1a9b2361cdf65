//! Connections that break: what is repeated, what is not, and output that loses nothing.

use std::sync::atomic::Ordering;

use executr_api::output::Record;
use executr_api::{Client, ErrorCode, JobStatus, Outcome, OutputEvent, OutputFollow, Submission, WorkerApi};
use executr_spec::{Step, StepCommand};
use futures_util::StreamExt;
use tokio::time::timeout;

use crate::line::Line;
use crate::server::{PATIENCE, Server, client_of};
use crate::work::Worker;

fn job() -> Submission {
    let step = Step::new(StepCommand::Run("true".to_owned()));
    Submission { steps: Some(vec![step]), ..Submission::default() }
}

#[tokio::test]
async fn what_may_be_repeated_is_and_nothing_else() {
    let server = Server::start().await;
    // Every connection breaks after a part of the answer's head; each third is whole.
    let bad = |number: usize| (number % 3 != 2).then_some(10);
    let line = Line::to(server.address, bad).await;
    client_of(line.address).stats().await.unwrap();
    assert_eq!(line.connections.load(Ordering::SeqCst), 3);

    let line = Line::to(server.address, bad).await;
    let error = client_of(line.address).submit(job()).await.unwrap_err();
    assert_eq!((error.code, line.connections.load(Ordering::SeqCst)), (ErrorCode::Unavailable, 1));
    // It had arrived: who gives it a key may send it again, and gets the one job.
    assert_eq!(server.client().stats().await.unwrap().jobs_by_status["pending"], 1);
    let line = Line::to(server.address, bad).await;
    let keyed = Submission { idempotency_key: Some("k".to_owned()), ..job() };
    client_of(line.address).submit(keyed).await.unwrap();
    assert_eq!(server.client().stats().await.unwrap().jobs_by_status["pending"], 2);

    let line = Line::to(server.address, bad).await;
    let worker = Worker::new(client_of(line.address));
    let error = worker.client.exchange(worker.report.clone()).await.unwrap_err();
    assert_eq!((error.code, line.connections.load(Ordering::SeqCst)), (ErrorCode::Unavailable, 1));
}

#[tokio::test]
async fn output_that_is_followed_over_a_breaking_line_loses_and_repeats_nothing() {
    const CHUNK: usize = 50_000;
    let server = Server::start().await;
    // Each connection brings a bit more than the one before, so that breaks fall anywhere.
    let line = Line::to(server.address, |number| (number < 12).then_some(150 + 17_001 * number as u64)).await;
    let job = server.client().submit(job()).await.unwrap();
    let mut worker = Worker::new(server.client());
    let lease = worker.take().await;
    let work = async {
        for number in 0..20_u64 {
            let bytes: Vec<u8> = (0..CHUNK).map(|n| (n as u64 * 7 + number) as u8).collect();
            worker.append(&lease, number * CHUNK as u64, &bytes).await;
        }
        worker.finish(lease.fence, Outcome::Succeeded, 20 * CHUNK as u64).await;
    };
    let read = async {
        let follow = OutputFollow { follow: true, ..OutputFollow::default() };
        let client = client_of(line.address);
        let mut output = loop {
            // The first connections break before there is an answer.
            if let Ok(output) = client.output(job.id, follow).await {
                break output;
            }
        };
        let (mut bytes, mut attempts) = (Vec::new(), Vec::new());
        while let Some(event) = output.next().await {
            match event.unwrap() {
                OutputEvent::Attempt(attempt) => attempts.push(attempt),
                OutputEvent::Chunk(chunk) => {
                    assert_eq!(chunk.offset, bytes.len() as u64);
                    for record in chunk.records.iter() {
                        if let Record::Data { bytes: more, .. } = record {
                            bytes.extend_from_slice(&more);
                        }
                    }
                }
                OutputEvent::End(status) => return (bytes, attempts, status),
            }
        }
        panic!("the output ended without an end");
    };
    let ((bytes, attempts, status), ()) = timeout(PATIENCE, async { tokio::join!(read, work) }).await.unwrap();
    assert_eq!((attempts, status), (vec![1], JobStatus::Completed));
    assert_eq!(bytes.len(), 20 * CHUNK);
    for (number, part) in bytes.chunks(CHUNK).enumerate() {
        assert!(part.iter().enumerate().all(|(n, byte)| *byte == (n * 7 + number) as u8), "chunk {number}");
    }
    assert!(line.connections.load(Ordering::SeqCst) > 5);
}

#[tokio::test]
async fn output_gives_up_when_the_server_stays_away() {
    let server = Server::start().await;
    let job = server.client().submit(job()).await.unwrap();
    let options = executr_client::ClientOptions {
        reconnect_for: std::time::Duration::ZERO,
        ..executr_client::ClientOptions::new(format!("http://{}", server.address))
    };
    let client = executr_client::HttpClient::new(options).unwrap();
    let follow = OutputFollow { follow: true, ..OutputFollow::default() };
    let mut output = client.output(job.id, follow).await.unwrap();
    server.stop.cancel();
    let error = timeout(PATIENCE, async {
        loop {
            match output.next().await.expect("an error before the end") {
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    });
    assert_eq!(error.await.unwrap().code, ErrorCode::Unavailable);
    assert!(output.next().await.is_none());
}

/// A server that takes every request, and has nothing to say.
async fn says_nothing() -> std::net::SocketAddr {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut line, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = line.read(&mut [0; 4_096]).await;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
                let _ = line.write_all(answer).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn output_gives_up_on_a_server_that_takes_the_request_and_says_nothing() {
    let address = says_nothing().await;
    let options = executr_client::ClientOptions {
        reconnect_for: std::time::Duration::from_millis(300),
        ..executr_client::ClientOptions::new(format!("http://{address}"))
    };
    let client = executr_client::HttpClient::new(options).unwrap();
    let follow = OutputFollow { follow: true, ..OutputFollow::default() };
    let mut output = client.output(executr_spec::JobId(uuid::Uuid::nil()), follow).await.unwrap();
    let error = timeout(PATIENCE, output.next()).await.unwrap().expect("an error before the end").unwrap_err();
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert!(output.next().await.is_none());
}
