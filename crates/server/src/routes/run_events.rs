//! A run's events, as they happen or as far as they have.
//!
//! ```text
//! event: job_started    id: 2    data: {"number":2,"at":"…","event":"job_started","job":"build",…}
//! event: end                     data: {"after":7}
//! ```
//!
//! An id is the event's number, so it is where to go on. A stream that fails sends an event `error` with an error as
//! everywhere; one that ends with neither `end` nor `error` was broken off, and can be resumed.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Response};
use bytes::Bytes;
use executr_api::{ApiError, ErrorCode, RunClient, RunEvent, RunEventFollow, RunEventStream};
use executr_spec::RunId;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use utoipa::IntoParams;

use super::json;
use crate::access::{May, Read};
use crate::app::Shared;
use crate::failure::{Answer, Failure};
use crate::input::{Position, Query, Segment};

/// A list has at most so many events.
const LISTED: usize = 1_000;

/// Which events.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventsQuery {
    /// Those after this number.
    #[serde(default)]
    #[param(required = false, value_type = u64, maximum = 9_223_372_036_854_775_807_i64)]
    after: Position,
    /// Go on until the run is final; for a stream only.
    #[serde(default)]
    #[param(required = false)]
    follow: bool,
}

/// Read a run's events
///
/// With `Accept: text/event-stream` as a stream, each event by its name and with its number as id, then `end`; with the id
/// of the last event seen in `Last-Event-ID` it goes on after that. Else as a list of at most 1000.
#[utoipa::path(get, path = "/runs/{id}/events", tag = "runs",
    params(
        ("id" = RunId, Path),
        EventsQuery,
        ("last-event-id" = Option<String>, Header, description = "Go on after this event", pattern = r"^[0-9]{1,18}$"),
    ),
    responses(
        (status = 200, description = "The events.", content(
            (Vec<RunEvent> = "application/json"),
            (String = "text/event-stream"),
        )),
        (status = 404, description = "There is no such run.", body = ApiError),
    ))]
pub(crate) async fn read(
    State(app): State<Shared>,
    caller: May<Read>,
    Segment(id): Segment<RunId>,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Answer<Response<Body>> {
    let after = match headers.get("last-event-id") {
        None => query.after.0,
        Some(value) => resumed(value).ok_or_else(|| {
            Failure::new(ErrorCode::BadRequest, "Last-Event-ID isn't one of ours; send it as it came, or leave it out")
        })?,
    };
    let streamed = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|accept| accept.contains("text/event-stream"));
    let follow = RunEventFollow { after, follow: streamed && query.follow };
    let events = app.coordinator.client(caller.tenant).run_events(id, follow).await?;
    if !streamed {
        let events: Vec<RunEvent> = events.take(LISTED).try_collect().await?;
        return Ok(json(200, &events));
    }
    let mut response = Response::new(body(events, after, app.limits.keep_alive, app.stopping.clone()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn resumed(value: &HeaderValue) -> Option<u64> {
    let number: u64 = value.to_str().ok()?.parse().ok()?;
    (number <= i64::MAX as u64).then_some(number)
}

struct Sending {
    events: RunEventStream,
    after: u64,
    ended: bool,
    keep_alive: Duration,
    stopping: CancellationToken,
}

/// The events as text. They are made only as fast as they are taken: a slow reader stalls itself alone.
fn body(events: RunEventStream, after: u64, keep_alive: Duration, stopping: CancellationToken) -> Body {
    let sending = Sending { events, after, ended: false, keep_alive, stopping };
    Body::from_stream(stream::unfold(sending, |mut sending| async move {
        let bytes = sending.next().await?;
        Some((Ok::<_, ApiError>(bytes), sending))
    }))
}

impl Sending {
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let event = tokio::select! {
            event = timeout(self.keep_alive, self.events.next()) => event,
            () = self.stopping.cancelled() => return None,
        };
        let text = match event {
            Err(_) => return Some(Bytes::from_static(b": still here\n\n")),
            Ok(Some(Ok(event))) => {
                self.after = event.number;
                let data = serde_json::to_string(&event).unwrap_or_default();
                format!("event: {}\nid: {}\ndata: {data}\n\n", event.kind.as_str(), event.number)
            }
            Ok(Some(Err(error))) => {
                self.ended = true;
                format!("event: error\ndata: {}\n\n", serde_json::to_string(&error).unwrap_or_default())
            }
            Ok(None) => {
                self.ended = true;
                format!("event: end\ndata: {{\"after\":{}}}\n\n", self.after)
            }
        };
        Some(text.into())
    }
}

#[cfg(test)]
mod tests {
    use executr_api::{RunEventKind, RunState};
    use executr_spec::Timestamp;
    use http_body_util::BodyExt;

    use super::*;

    fn event(number: u64, kind: RunEventKind) -> RunEvent {
        RunEvent { number, at: Timestamp(0), kind }
    }

    #[tokio::test]
    async fn events_carry_their_names_and_where_to_go_on() {
        let events =
            [event(1, RunEventKind::RunCreated), event(2, RunEventKind::RunEnded { state: RunState::Completed })];
        let events = stream::iter(events.map(Ok)).boxed();
        let text = body(events, 0, Duration::from_secs(15), CancellationToken::new());
        let text = text.collect().await.expect("a body").to_bytes();
        let text = String::from_utf8_lossy(&text).into_owned();
        let parts: Vec<&str> = text.split("\n\n").collect();
        assert!(parts[0].starts_with("event: run_created\nid: 1\ndata: {"), "{text}");
        assert!(parts[1].starts_with("event: run_ended\nid: 2\ndata: {"), "{text}");
        assert_eq!(parts[2], "event: end\ndata: {\"after\":2}");
    }

    #[tokio::test]
    async fn silence_is_filled_and_stopping_breaks_off() {
        let stopping = CancellationToken::new();
        let mut body = body(stream::pending().boxed(), 0, Duration::from_millis(1), stopping.clone());
        let frame = body.frame().await.expect("a frame").expect("bytes").into_data().expect("data");
        assert!(frame.starts_with(b":"));
        stopping.cancel();
        while let Some(frame) = body.frame().await {
            assert!(frame.expect("bytes").into_data().expect("data").starts_with(b":"));
        }
    }
}
