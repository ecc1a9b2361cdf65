//! Consoles through a server: two requests that become one line.

use bytes::Bytes;
use executr_api::console::{CONSOLE_PROTOCOL, ConsoleAsk, ConsoleEnd, ConsoleFrame, ConsoleLine};
use executr_api::output::Stream;
use executr_api::{Client, ErrorCode, Submission, WorkerApi};
use executr_client::HttpClient;
use executr_spec::{JobId, Step, StepCommand};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::server::{PATIENCE, Server};
use crate::work::Worker;

async fn said(line: &mut ConsoleLine) -> ConsoleFrame {
    timeout(PATIENCE, line.frames.next()).await.unwrap().unwrap().unwrap()
}

/// A job that runs at `worker`.
async fn running(client: &HttpClient, worker: &mut Worker) -> JobId {
    let step = Step::new(StepCommand::Argv(vec!["true".to_owned()]));
    let id = client.submit(Submission { steps: Some(vec![step]), ..Submission::default() }).await.unwrap().id;
    assert_eq!(worker.take().await.fence.job, id);
    id
}

/// Both ends of a console: the caller's and the host's.
async fn joined(server: &Server, worker: &mut Worker) -> (ConsoleLine, ConsoleLine) {
    let client = server.client();
    let id = running(&client, worker).await;
    let asked = tokio::spawn(async move { client.console(id).await.unwrap() });
    let order = loop {
        if let Some(order) = worker.exchange().await.consoles.pop() {
            break order;
        }
    };
    let host = worker.client.join_console(order.console).await.unwrap();
    (timeout(PATIENCE, asked).await.unwrap().unwrap(), host)
}

#[tokio::test]
async fn bytes_go_both_ways_exactly_and_the_end_arrives() {
    let server = Server::start().await;
    let mut worker = Worker::new(server.client());
    let (mut caller, mut host) = joined(&server, &mut worker).await;
    let ask = ConsoleFrame::Ask(ConsoleAsk { command: vec!["cat".to_owned()], terminal: None });
    caller.sink.send(ask.clone()).await.unwrap();
    assert_eq!(said(&mut host).await, ask);
    for length in [0, 1, 60_000, 65_536] {
        let bytes: Bytes = (0..length).map(|at| (at % 251) as u8).collect();
        caller.sink.send(ConsoleFrame::Input(bytes.clone())).await.unwrap();
        assert_eq!(said(&mut host).await, ConsoleFrame::Input(bytes.clone()));
        let output = ConsoleFrame::Output { stream: Stream::Stderr, bytes };
        host.sink.send(output.clone()).await.unwrap();
        assert_eq!(said(&mut caller).await, output);
    }
    let end = ConsoleFrame::End(ConsoleEnd::Signalled { signal: 9 });
    host.sink.send(end.clone()).await.unwrap();
    assert_eq!(said(&mut caller).await, end);
}

#[tokio::test]
async fn who_is_left_is_told() {
    let server = Server::start().await;
    let mut worker = Worker::new(server.client());
    worker.report.worker.slots = 3;
    let (caller, mut host) = joined(&server, &mut worker).await;
    drop(caller);
    assert!(timeout(PATIENCE, host.frames.next()).await.unwrap().is_none_or(|frame| frame.is_err()));
    let (mut caller, host) = joined(&server, &mut worker).await;
    drop(host);
    let ConsoleFrame::End(ConsoleEnd::Ended { message }) = said(&mut caller).await else { panic!("no end") };
    assert!(message.contains("executor was lost"), "{message}");
    let (mut caller, _host) = joined(&server, &mut worker).await;
    server.stop.cancel();
    let told = timeout(PATIENCE, caller.frames.next()).await.unwrap();
    let ConsoleFrame::End(ConsoleEnd::Ended { message }) = told.unwrap().unwrap() else { panic!("no end") };
    assert!(message.contains("stopping"), "{message}");
}

#[tokio::test]
async fn a_request_that_is_no_console_is_told_how() {
    let server = Server::start().await;
    let client = server.client();
    let mut worker = Worker::new(server.client());
    let id = running(&client, &mut worker).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!("GET /api/v1/jobs/{id}/console HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains(CONSOLE_PROTOCOL), "{answer}");
    let unknown = client.console(JobId(uuid::Uuid::nil())).await.unwrap_err();
    assert_eq!(unknown.code, ErrorCode::NotFound);
}
