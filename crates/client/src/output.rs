//! Output as a stream that survives the loss of its connection.

use executr_api::output::OutputChunk;
use executr_api::{ApiError, JobStatus, OutputEvent, OutputFollow, OutputStream};
use executr_spec::JobId;
use futures_util::StreamExt;
use futures_util::stream;
use reqwest::{Method, RequestBuilder};
use serde::Deserialize;

use crate::event_stream::EventStream;
use crate::http::HttpClient;
use crate::sse::Event;

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
    let place = Place { job, asked, attempt: None, position: asked.offset };
    let request = place.request(&client);
    let reader = Reader { events: EventStream::open(client, request).await?, place, ended: false };
    Ok(stream::unfold(reader, |mut reader| async move { reader.next().await.map(|event| (event, reader)) }).boxed())
}

struct Reader {
    events: EventStream,
    place: Place,
    ended: bool,
}

/// How far a reader got.
struct Place {
    job: JobId,
    asked: OutputFollow,
    /// The attempt last named.
    attempt: Option<u32>,
    /// Where in its output the next record starts.
    position: u64,
}

impl Place {
    /// The request that goes on there.
    fn request(&self, client: &HttpClient) -> RequestBuilder {
        let mut query = vec![("follow", self.asked.follow.to_string()), ("offset", self.asked.offset.to_string())];
        query.extend(self.asked.attempt.map(|attempt| ("attempt", attempt.to_string())));
        let request = client.request(Method::GET, &format!("/jobs/{}/output", self.job)).query(&query);
        match self.attempt {
            Some(attempt) => request.header("last-event-id", format!("{attempt}:{}", self.position)),
            None => request,
        }
    }

    /// What an event means, after what was had before is taken off.
    fn take(&mut self, client: &HttpClient, event: &Event) -> Result<Option<OutputEvent>, ApiError> {
        match event.name.as_str() {
            "attempt" => {
                let AttemptData { attempt } = client.decode(&event.data)?;
                if self.attempt == Some(attempt) {
                    return Ok(None);
                }
                if self.attempt.is_some() {
                    self.position = 0;
                }
                self.attempt = Some(attempt);
                Ok(Some(OutputEvent::Attempt(attempt)))
            }
            "output" => {
                let chunk: OutputChunk = client.decode(&event.data)?;
                let end = chunk.end();
                if end <= self.position {
                    return Ok(None);
                }
                let known = self.position.saturating_sub(chunk.offset);
                self.position = end;
                let records = chunk.records.skip(known);
                Ok(Some(OutputEvent::Chunk(OutputChunk { offset: chunk.offset + known, records })))
            }
            "end" => {
                let EndData { status } = client.decode(&event.data)?;
                Ok(Some(OutputEvent::End(status)))
            }
            "error" => Err(client.decode(&event.data)?),
            // Later servers may say more.
            _ => Ok(None),
        }
    }
}

impl Reader {
    async fn next(&mut self) -> Option<Result<OutputEvent, ApiError>> {
        while !self.ended {
            match self.step().await {
                Ok(None) => {}
                Ok(Some(event)) => {
                    self.ended = matches!(event, OutputEvent::End(_));
                    return Some(Ok(event));
                }
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }

    async fn step(&mut self) -> Result<Option<OutputEvent>, ApiError> {
        let event = self.events.next(|client| self.place.request(client)).await?;
        match self.place.take(self.events.client(), &event) {
            Ok(taken) => {
                self.events.understood();
                Ok(taken)
            }
            Err(error) => self.events.failed(error).map(|()| None),
        }
    }
}
