//! One caller's HTTP/2, and which service a call is for.
//!
//! Calls go straight from the connection to the service whose name begins their path; between the two stands nothing but the
//! question whether the caller may call at all.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use executr_agent_protocol::MAX_MESSAGE;
use executr_agent_protocol::v1::agent_server::{AgentServer, SERVICE_NAME as AGENT};
use executr_agent_protocol::v1::files_server::{FilesServer, SERVICE_NAME as FILES};
use executr_agent_protocol::v1::trees_server::{SERVICE_NAME as TREES, TreesServer};
use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::server::conn::http2;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tonic::Status;
use tonic::body::Body;
use tower::Service as _;

use super::files::FileCalls;
use super::service::{AgentCalls, Shared};
use super::token::Token;
use super::trees::TreeCalls;

/// Bytes a caller may send of one call, and of all, before they are taken.
const CALL_WINDOW: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;

/// Largest frame of HTTP/2 taken, in bytes.
const FRAME: u32 = 256 * 1024;

/// Calls a caller may have open at once.
const CALLS: u32 = 4096;

/// How often a silent caller is asked whether it is still there, and how long it may take to answer.
const PING: Duration = Duration::from_secs(10);
const PONG: Duration = Duration::from_secs(10);

/// Serves callers, and counts them.
pub(super) struct Caller {
    calls: Calls,
    open: Arc<Open>,
}

/// How many there are.
#[derive(Default)]
pub(super) struct Open {
    count: AtomicUsize,
    pub(super) changed: Notify,
}

impl Open {
    pub(super) fn is_none(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }
}

/// One of them; gone when dropped.
struct Present(Arc<Open>);

impl Drop for Present {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
        self.0.changed.notify_one();
    }
}

impl Caller {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let agent = AgentServer::new(AgentCalls(shared)).max_decoding_message_size(MAX_MESSAGE);
        let agent = agent.max_encoding_message_size(MAX_MESSAGE);
        let files = FilesServer::new(FileCalls).max_decoding_message_size(MAX_MESSAGE);
        let files = files.max_encoding_message_size(MAX_MESSAGE);
        let trees = TreesServer::new(TreeCalls::default()).max_decoding_message_size(MAX_MESSAGE);
        let trees = trees.max_encoding_message_size(MAX_MESSAGE);
        Self { calls: Calls { agent, files, trees, token: None }, open: Arc::default() }
    }

    pub(super) fn open(&self) -> &Arc<Open> {
        &self.open
    }

    /// Serves the caller at the other end of `stream` until it is gone.
    pub(super) fn serve<S>(&self, stream: S, token: Option<Arc<Token>>) -> impl Future<Output = ()> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.open.count.fetch_add(1, Ordering::Relaxed);
        let present = Present(Arc::clone(&self.open));
        let calls = Calls { token, ..self.calls.clone() };
        async move {
            let mut http = http2::Builder::new(TokioExecutor::new());
            http.timer(TokioTimer::new())
                .initial_stream_window_size(CALL_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_frame_size(FRAME)
                .max_concurrent_streams(CALLS)
                .keep_alive_interval(PING)
                .keep_alive_timeout(PONG);
            // However it ended, the caller is gone.
            let _ = http.serve_connection(TokioIo::new(stream), calls).await;
            drop(present);
        }
    }
}

/// All services.
#[derive(Clone)]
struct Calls {
    agent: AgentServer<AgentCalls>,
    files: FilesServer<FileCalls>,
    trees: TreesServer<TreeCalls>,
    token: Option<Arc<Token>>,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl hyper::service::Service<Request<Incoming>> for Calls {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        let refused = |status: Status| -> Answer {
            let answer: Ready<_> = ready(Ok(status.into_http::<Body>()));
            Box::pin(answer)
        };
        if let Some(token) = &self.token {
            let named = request.headers().get(AUTHORIZATION).map(|value| value.as_bytes());
            if let Err(status) = token.check(named) {
                return refused(status);
            }
        }
        let service = request.uri().path().split('/').nth(1);
        match service {
            Some(AGENT) => self.agent.clone().call(request),
            Some(FILES) => self.files.clone().call(request),
            Some(TREES) => self.trees.clone().call(request),
            _ => refused(Status::unimplemented(
                "the agent has no such service; use caller and agent of the same release",
            )),
        }
    }
}
