//! A caller that knows nothing but the protocol: the client generated from it.

use std::pin::Pin;
use std::task::{Context, Poll};

use executr_agent_protocol::driver::{Dial, StartTask, UnixDial};
use executr_agent_protocol::v1::agent_client::AgentClient;
use executr_agent_protocol::v1::task_request::Message as Say;
use executr_agent_protocol::v1::task_response::Message as Heard;
use executr_agent_protocol::v1::{
    Attach, HelloRequest, ListTasksRequest, Received, StartTaskRequest, TaskEnd, TaskRequest, TaskState, task_result,
};
use futures_core::Stream;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::mpsc;
use tonic::Code;
use tonic::body::Body;

use crate::rig::{Rig, within};

type Sender = hyper::client::conn::http2::SendRequest<Body>;

/// HTTP/2 as any library does it, with its own defaults.
#[derive(Clone)]
struct Channel(Sender);

impl tower::Service<hyper::Request<Body>> for Channel {
    type Response = hyper::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: hyper::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

async fn client(rig: &Rig) -> AgentClient<Channel> {
    let stream = UnixDial(rig.socket()).dial().await.unwrap();
    let (send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    AgentClient::with_origin(Channel(send), "http://agent".parse().unwrap())
}

struct Said(mpsc::UnboundedReceiver<TaskRequest>);

impl Stream for Said {
    type Item = TaskRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<TaskRequest>> {
        self.0.poll_recv(context)
    }
}

fn said(messages: impl IntoIterator<Item = Say>) -> (mpsc::UnboundedSender<TaskRequest>, Said) {
    let (say, said) = mpsc::unbounded_channel();
    for message in messages {
        say.send(TaskRequest { message: Some(message) }).unwrap();
    }
    (say, Said(said))
}

fn start(id: &str, task: StartTask) -> Say {
    let patience_ms = 20_000;
    Say::Start(StartTaskRequest { task_id: id.to_owned(), task: Some(task), patience_ms, acknowledges: false })
}

#[tokio::test]
async fn one_message_is_a_whole_conversation() {
    let rig = Rig::new().await;
    let mut client = client(&rig).await;
    // Everything is said, and that nothing more comes, before anything is heard.
    let (_, requests) = said([start("", rig.sh("printf hello; exit 3"))]);
    let mut answers = within(client.task(requests)).await.unwrap().into_inner();
    let mut output = Vec::new();
    let mut outcome = None;
    while let Some(answer) = within(answers.message()).await.unwrap() {
        match answer.message.unwrap() {
            Heard::Started(started) => assert!(started.pid > 0),
            Heard::Output(piece) => output.extend_from_slice(&piece.data),
            Heard::Result(result) => outcome = result.outcome,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(output, b"hello");
    assert_eq!(outcome, Some(task_result::Outcome::ExitCode(3)));
    drop((answers, client));
    rig.ended().await;
}

#[tokio::test]
async fn a_caller_who_never_acknowledges_gets_all_of_it() {
    let rig = Rig::new().await;
    let mut client = client(&rig).await;
    let (_say, requests) = said([start("big", rig.sh("head -c 9000000 /dev/zero"))]);
    let mut answers = within(client.task(requests)).await.unwrap().into_inner();
    let mut bytes = 0;
    while let Some(answer) = within(answers.message()).await.unwrap() {
        if let Some(Heard::Output(piece)) = answer.message {
            assert_eq!(piece.offset, bytes);
            bytes += piece.data.len() as u64;
        }
    }
    assert_eq!(bytes, 9_000_000);
}

#[tokio::test]
async fn tasks_are_listed_and_followed_by_name() {
    let rig = Rig::new().await;
    let mut client = client(&rig).await;
    let (say, requests) = said([start("mine", rig.sh("exec sleep 1000"))]);
    let first = within(client.task(requests)).await.unwrap().into_inner();
    let twice = within(client.task(said([start("mine", rig.sh("true"))]).1)).await.unwrap_err();
    assert_eq!(twice.code(), Code::AlreadyExists);

    drop((first, say));
    let (say, requests) = said([Say::Attach(Attach { task_id: "mine".into(), received: Some(Received::default()) })]);
    let mut again = within(client.task(requests)).await.unwrap().into_inner();
    assert!(matches!(within(again.message()).await.unwrap().unwrap().message, Some(Heard::Attached(_))));
    loop {
        let tasks = within(client.list_tasks(ListTasksRequest {})).await.unwrap().into_inner().tasks;
        let [task] = &tasks[..] else { panic!("{tasks:?}") };
        assert_eq!((task.task_id.as_str(), task.attached, task.argv.len()), ("mine", true, 3));
        if task.state() == TaskState::Running {
            break;
        }
    }
    say.send(TaskRequest { message: Some(Say::End(TaskEnd { grace_ms: 0 })) }).unwrap();
    let result = loop {
        if let Some(Heard::Result(result)) = within(again.message()).await.unwrap().unwrap().message {
            break result;
        }
    };
    assert_eq!(result.outcome, Some(task_result::Outcome::Signal(9)));
    let gone = Say::Attach(Attach { task_id: "mine".into(), received: None });
    assert_eq!(within(client.task(said([gone]).1)).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn what_has_no_meaning_is_refused() {
    let rig = Rig::new().await;
    let mut client = client(&rig).await;
    let other = within(client.hello(HelloRequest { protocol: 2, digest: false })).await.unwrap_err();
    assert_eq!(other.code(), Code::FailedPrecondition);
    assert!(other.message().contains("same release"), "{}", other.message());

    for first in
        [Say::End(TaskEnd::default()), Say::Start(StartTaskRequest::default()), start(&"x".repeat(65), rig.sh("true"))]
    {
        assert_eq!(within(client.task(said([first]).1)).await.unwrap_err().code(), Code::InvalidArgument);
    }
    // Said twice, it isn't started twice.
    let (_say, requests) = said([start("a", rig.sh("exec sleep 1000")), start("b", rig.sh("true"))]);
    let mut answers = within(client.task(requests)).await.unwrap().into_inner();
    let status = loop {
        match within(answers.message()).await {
            Ok(answer) => assert!(answer.is_some()),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::InvalidArgument);
}
