//! A run's events as a stream that survives the loss of its connection.

use executr_api::{ApiError, RunEvent, RunEventFollow, RunEventKind, RunEventStream};
use executr_spec::RunId;
use futures_util::StreamExt;
use futures_util::stream;
use reqwest::{Method, RequestBuilder};

use crate::event_stream::EventStream;
use crate::http::HttpClient;

/// Asks for events. What is wrong with the request is known when this returns.
pub(crate) async fn open(client: HttpClient, run: RunId, asked: RunEventFollow) -> Result<RunEventStream, ApiError> {
    let request = request(&client, run, asked);
    let reader = Reader { events: EventStream::open(client, request).await?, run, at: asked, ended: false };
    Ok(stream::unfold(reader, |mut reader| async move { reader.next().await.map(|event| (event, reader)) }).boxed())
}

fn request(client: &HttpClient, run: RunId, at: RunEventFollow) -> RequestBuilder {
    let query = [("after", at.after.to_string()), ("follow", at.follow.to_string())];
    client.request(Method::GET, &format!("/runs/{run}/events")).query(&query)
}

struct Reader {
    events: EventStream,
    run: RunId,
    /// What to ask for next.
    at: RunEventFollow,
    ended: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<Result<RunEvent, ApiError>> {
        while !self.ended {
            match self.step().await {
                Ok(None) => {}
                Ok(Some(event)) => {
                    self.ended = matches!(event.kind, RunEventKind::RunEnded { .. });
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

    async fn step(&mut self) -> Result<Option<RunEvent>, ApiError> {
        let (run, at) = (self.run, self.at);
        let event = self.events.next(|client| request(client, run, at)).await?;
        let client = self.events.client();
        let taken: Result<Option<RunEvent>, ApiError> = match event.name.as_str() {
            "end" => {
                self.ended = true;
                Ok(None)
            }
            "error" => client.decode(&event.data).and_then(Err),
            // Comes from a connection before, as far as it is known.
            _ => client.decode::<RunEvent>(&event.data).map(|event| (event.number > at.after).then_some(event)),
        };
        match taken {
            Ok(event) => {
                self.at.after = event.as_ref().map_or(at.after, |event| event.number);
                self.events.understood();
                Ok(event)
            }
            Err(error) => self.events.failed(error).map(|()| None),
        }
    }
}
