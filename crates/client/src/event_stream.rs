//! Server-sent events over a connection that is made anew whenever it breaks.

use std::time::Duration;

use bytes::Bytes;
use executr_api::{ApiError, ErrorCode, RetryDelay};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use reqwest::RequestBuilder;
use reqwest::header::ACCEPT;
use tokio::time::{Instant, timeout};

use crate::http::{HttpClient, Repeat};
use crate::sse::{Event, Parser};

/// The server says something at least every 15 s; after this long without a word the connection is dead.
const SILENCE: Duration = Duration::from_secs(45);
/// Who still says something after so long serves, though there may be no event for hours.
const STEADY: Duration = Duration::from_secs(10);
/// A stream has no end of its own; the silence above bounds it.
const WHOLE: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Between connections.
const DELAY: RetryDelay = RetryDelay::new(Duration::from_millis(100), Duration::from_secs(3));

/// Events of one thing. Whoever reads them knows where it stands, and makes the request that goes on there.
pub(crate) struct EventStream {
    client: HttpClient,
    connection: Option<Connection>,
    /// Since when no word has come, once a connection was lost.
    lost: Option<Instant>,
    delay: RetryDelay,
}

struct Connection {
    since: Instant,
    bytes: BoxStream<'static, reqwest::Result<Bytes>>,
    parser: Parser,
}

impl EventStream {
    /// Asks with this request. What is wrong with it is known when this returns.
    pub(crate) async fn open(client: HttpClient, request: RequestBuilder) -> Result<Self, ApiError> {
        let mut stream = Self { client, connection: None, lost: None, delay: DELAY };
        stream.connect(request).await?;
        Ok(stream)
    }

    /// By what it asks.
    pub(crate) fn client(&self) -> &HttpClient {
        &self.client
    }

    async fn connect(&mut self, request: RequestBuilder) -> Result<(), ApiError> {
        let request = request.header(ACCEPT, "text/event-stream").timeout(WHOLE);
        let answer = timeout(SILENCE, self.client.send(request, Repeat::Harmless)).await;
        let response =
            answer.unwrap_or_else(|_| Err(ApiError::new(ErrorCode::Timeout, "the server doesn't answer")))?;
        self.connection = Some(Connection {
            since: Instant::now(),
            bytes: response.bytes_stream().boxed(),
            parser: Parser::default(),
        });
        Ok(())
    }

    /// The next event, over a new connection made with `request` where the last one broke.
    ///
    /// # Errors
    /// When the server was away for too long, or refuses.
    pub(crate) async fn next(&mut self, request: impl Fn(&HttpClient) -> RequestBuilder) -> Result<Event, ApiError> {
        loop {
            let Some(connection) = &mut self.connection else {
                self.reconnect(&request).await?;
                continue;
            };
            if let Some(event) = connection.parser.next() {
                return Ok(event);
            }
            match timeout(SILENCE, connection.bytes.next()).await {
                Ok(Some(Ok(bytes))) => {
                    if connection.since.elapsed() >= STEADY {
                        self.lost = None;
                    }
                    if connection.parser.push(&bytes).is_err() {
                        return Err(ApiError::new(ErrorCode::Internal, "the server sent an endless event"));
                    }
                }
                Ok(Some(Err(_)) | None) | Err(_) => self.lose(ApiError::new(
                    ErrorCode::Unavailable,
                    "the connection that events came by is lost again and again",
                ))?,
            }
        }
    }

    /// An event was understood: only that proves that there is a server that works.
    pub(crate) fn understood(&mut self) {
        self.lost = None;
        self.delay.reset();
    }

    /// An event was an error, or none that can be. Over when the error is, else the server is asked again.
    pub(crate) fn failed(&mut self, error: ApiError) -> Result<(), ApiError> {
        if error.code.is_transient() && error.code != ErrorCode::Internal {
            return self.lose(error);
        }
        Err(error)
    }

    /// The connection is gone, by `error`, which is the answer when none has worked for too long: one that can be made but
    /// brings nothing is none.
    fn lose(&mut self, error: ApiError) -> Result<(), ApiError> {
        tracing::debug!(%error, "the connection that events came by is lost");
        self.connection = None;
        let since = self.lost.get_or_insert_with(Instant::now).elapsed();
        if since > self.client.inner.options.reconnect_for { Err(error) } else { Ok(()) }
    }

    async fn reconnect(&mut self, request: &impl Fn(&HttpClient) -> RequestBuilder) -> Result<(), ApiError> {
        loop {
            tokio::time::sleep(self.delay.next_delay()).await;
            let request = request(&self.client);
            // Boxed: the future of `connect` is large and this is the rare way.
            match self.connect(request).boxed().await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    let since = self.lost.map_or(Duration::ZERO, |lost| lost.elapsed());
                    if !error.code.is_transient() || since > self.client.inner.options.reconnect_for {
                        return Err(error);
                    }
                }
            }
        }
    }
}
