//! HTTP/2 on one stream to an agent.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tonic::body::Body;
use tower::Service;

use super::dial::Duplex;
use super::error::AgentError;
use super::{AgentOptions, Token};

/// Bytes an agent may send for one call before they are taken. Of a task no more is ever on the way than it keeps.
const CALL_WINDOW: u32 = 4 * 1024 * 1024;
/// For all calls: so many that tasks nobody reads never hold up the others.
const CONNECTION_WINDOW: u32 = 1 << 30;

/// Largest frame of HTTP/2 taken, in bytes.
const FRAME: u32 = 256 * 1024;

/// A connection. A clone is the same one; it ends with the last of them.
#[derive(Clone)]
pub struct Wired {
    send: SendRequest<Body>,
    token: Option<HeaderValue>,
    /// It doesn't do any more, whatever it says itself.
    closed: Arc<AtomicBool>,
}

impl Wired {
    pub(super) async fn over(stream: Box<dyn Duplex>, options: &AgentOptions) -> Result<Self, AgentError> {
        let token = match &options.token {
            None => None,
            Some(Token(token)) => {
                let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| AgentError::Token)?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let (send, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(CALL_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .keep_alive_interval(options.ping)
            .keep_alive_timeout(options.ping)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| AgentError::Connection(error.to_string()))?;
        let closed = Arc::new(AtomicBool::new(false));
        tokio::spawn({
            let closed = Arc::clone(&closed);
            async move {
                // Whoever has a call open is told why.
                let _ = connection.await;
                closed.store(true, Ordering::Relaxed);
            }
        });
        Ok(Self { send, token, closed })
    }

    pub(super) fn is_open(&self) -> bool {
        !self.send.is_closed() && !self.closed.load(Ordering::Relaxed)
    }

    /// It is of no more use to anybody.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// What calls are addressed to: a connection leads to one agent only.
    #[must_use]
    pub fn origin() -> Uri {
        Uri::from_static("http://agent")
    }
}

impl Service<Request<Body>> for Wired {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.send.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some(token) = &self.token {
            request.headers_mut().insert(AUTHORIZATION, token.clone());
        }
        Box::pin(self.send.send_request(request))
    }
}
