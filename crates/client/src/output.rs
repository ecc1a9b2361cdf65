//! Output as a stream that survives the loss of its connection.

use std::time::Duration;

use bytes::Bytes;
use executr_api::output::OutputChunk;
use executr_api::{ApiError, ErrorCode, JobStatus, OutputEvent, OutputFollow, OutputStream};
use executr_spec::JobId;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use reqwest::Method;
use reqwest::header::ACCEPT;
use serde::Deserialize;
use tokio::time::{Instant, timeout};

use crate::http::{HttpClient, Repeat};
use crate::retry::Waits;
use crate::sse::{Event, Parser};

/// The server says something at least every 15 s; after this long without a word the connection is dead.
const SILENCE: Duration = Duration::from_secs(45);
/// A stream has no end of its own; the silence above bounds it.
const WHOLE: Duration = Duration::from_secs(30 * 24 * 3_600);

#[derive(Deserialize)]
struct AttemptData {
    attempt: u32,
}

#[derive(Deserialize)]
struct EndData {
    status: JobStatus,
}

/// Asks for output. What is wrong with the request is known when this returns.
pub(crate) async fn open(client: HttpClient, job: JobId, asked: OutputFollow) -> Result<OutputStream, ApiError> {
    let mut reader = Reader {
        client,
        job,
        asked,
        attempt: None,
        position: asked.offset,
        connection: None,
        lost: None,
        waits: waits(),
        ended: false,
    };
    reader.connect().await?;
    Ok(stream::unfold(reader, |mut reader| async move { reader.next().await.map(|event| (event, reader)) }).boxed())
}

fn waits() -> Waits {
    Waits::new(Duration::from_millis(100), Duration::from_secs(3))
}

struct Reader {
    client: HttpClient,
    job: JobId,
    asked: OutputFollow,
    /// The attempt last named.
    attempt: Option<u32>,
    /// Where in its output the next record starts.
    position: u64,
    connection: Option<Connection>,
    /// Since when no word has come, once a connection was lost.
    lost: Option<Instant>,
    waits: Waits,
    ended: bool,
}

struct Connection {
    bytes: BoxStream<'static, reqwest::Result<Bytes>>,
    parser: Parser,
}

impl Reader {
    async fn connect(&mut self) -> Result<(), ApiError> {
        let mut query = vec![("follow", self.asked.follow.to_string()), ("offset", self.asked.offset.to_string())];
        query.extend(self.asked.attempt.map(|attempt| ("attempt", attempt.to_string())));
        let mut request = self
            .client
            .request(Method::GET, &format!("/jobs/{}/output", self.job))
            .header(ACCEPT, "text/event-stream")
            .query(&query)
            .timeout(WHOLE);
        if let Some(attempt) = self.attempt {
            request = request.header("last-event-id", format!("{attempt}:{}", self.position));
        }
        let answer = timeout(SILENCE, self.client.send(request, Repeat::Harmless)).await;
        let response =
            answer.unwrap_or_else(|_| Err(ApiError::new(ErrorCode::Timeout, "the server doesn't answer")))?;
        self.connection = Some(Connection { bytes: response.bytes_stream().boxed(), parser: Parser::default() });
        Ok(())
    }

    async fn next(&mut self) -> Option<Result<OutputEvent, ApiError>> {
        while !self.ended {
            let Some(connection) = &mut self.connection else {
                if let Err(error) = self.reconnect().await {
                    self.ended = true;
                    return Some(Err(error));
                }
                continue;
            };
            if let Some(event) = connection.parser.next() {
                match self.take(&event) {
                    Ok(Some(event)) => return Some(Ok(event)),
                    Ok(None) => {}
                    Err(error) if error.code.is_transient() && error.code != ErrorCode::Internal => self.lose(),
                    Err(error) => {
                        self.ended = true;
                        return Some(Err(error));
                    }
                }
                continue;
            }
            match timeout(SILENCE, connection.bytes.next()).await {
                Ok(Some(Ok(bytes))) => {
                    if connection.parser.push(&bytes).is_err() {
                        self.ended = true;
                        return Some(Err(ApiError::new(ErrorCode::Internal, "the server sent an endless event")));
                    }
                }
                Ok(Some(Err(_)) | None) | Err(_) => self.lose(),
            }
        }
        None
    }

    fn lose(&mut self) {
        tracing::debug!(job = %self.job, position = self.position, "the connection that output came by is lost");
        self.connection = None;
        self.lost.get_or_insert_with(Instant::now);
    }

    async fn reconnect(&mut self) -> Result<(), ApiError> {
        loop {
            tokio::time::sleep(self.waits.next()).await;
            // Boxed: the future of `connect` is large and this is the rare way.
            match self.connect().boxed().await {
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

    /// What an event means, after what was had before is taken off.
    fn take(&mut self, event: &Event) -> Result<Option<OutputEvent>, ApiError> {
        let taken = match event.name.as_str() {
            "attempt" => {
                let AttemptData { attempt } = self.client.decode(&event.data)?;
                if self.attempt == Some(attempt) {
                    None
                } else {
                    if self.attempt.is_some() {
                        self.position = 0;
                    }
                    self.attempt = Some(attempt);
                    Some(OutputEvent::Attempt(attempt))
                }
            }
            "output" => {
                let chunk: OutputChunk = self.client.decode(&event.data)?;
                let end = chunk.end();
                if end <= self.position {
                    None
                } else {
                    let known = self.position.saturating_sub(chunk.offset);
                    self.position = end;
                    Some(OutputEvent::Chunk(OutputChunk {
                        offset: chunk.offset + known,
                        records: chunk.records.skip(known),
                    }))
                }
            }
            "end" => {
                let EndData { status } = self.client.decode(&event.data)?;
                self.ended = true;
                Some(OutputEvent::End(status))
            }
            "error" => return Err(self.client.decode(&event.data)?),
            // Later servers may say more.
            _ => None,
        };
        // Only an event proves that there is a server that works.
        self.lost = None;
        self.waits = waits();
        Ok(taken)
    }
}
