//! Output, as events or as plain bytes.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Response};
use bytes::{Bytes, BytesMut};
use executr_api::output::{Record, Stream};
use executr_api::{ApiError, Client, ErrorCode, OutputEvent, OutputFollow, OutputStream};
use executr_spec::{JobId, Tenant};
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, ToSchema};

use super::{RawBytes, resume, sse};
use crate::access::MayReadOutput;
use crate::app::Shared;
use crate::failure::{Answer, Failure};
use crate::input::{Position, Query, Segment};

/// Which bytes to send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Streams {
    /// Both, in the order they were read.
    #[default]
    Both,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Which output.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct OutputQuery {
    /// The attempt; when absent the last one, and with `follow` those that come after it too.
    #[param(minimum = 1)]
    attempt: Option<u32>,
    /// From this position on.
    #[serde(default)]
    #[param(required = false, value_type = u64, maximum = 9_223_372_036_854_775_807_i64)]
    offset: Position,
    /// Go on until the job is final.
    #[serde(default)]
    #[param(required = false)]
    follow: bool,
    /// Which stream; for plain bytes only.
    #[serde(default)]
    #[param(required = false, inline)]
    stream: Streams,
}

/// Read output
///
/// With `Accept: text/event-stream` as events `attempt`, `output` and `end`; with the id of the last event seen in
/// `Last-Event-ID` they go on after it. Else as plain bytes, with a line where bytes were not kept.
#[utoipa::path(get, path = "/jobs/{id}/output", tag = "jobs",
    params(
        ("id" = JobId, Path),
        OutputQuery,
        ("last-event-id" = Option<String>, Header, description = "Go on after this event", pattern = r"^[0-9]{1,9}:[0-9]{1,18}$"),
    ),
    responses(
        (status = 200, description = "The output.", content(
            (inline(RawBytes) = "application/octet-stream"),
            (String = "text/event-stream"),
        )),
        (status = 404, description = "There is no such job or attempt.", body = ApiError),
    ))]
pub(crate) async fn read(
    State(app): State<Shared>,
    _right: MayReadOutput,
    Segment(id): Segment<JobId>,
    Query(query): Query<OutputQuery>,
    headers: HeaderMap,
) -> Answer<Response<Body>> {
    let client = app.coordinator.client(Tenant::default());
    let follow = OutputFollow { attempt: query.attempt, offset: query.offset.0, follow: query.follow };
    let output = match headers.get("last-event-id") {
        None => client.output(id, follow).await?,
        Some(value) => {
            let position = value.to_str().ok().and_then(resume::Position::parse).ok_or_else(|| {
                Failure::new(
                    ErrorCode::BadRequest,
                    "Last-Event-ID isn't one of ours; send it as it came, or leave it out",
                )
            })?;
            resume::output(client, id, follow, position).await?
        }
    };
    let events = headers
        .get_all(ACCEPT)
        .iter()
        .any(|accept| accept.to_str().is_ok_and(|accept| accept.contains("text/event-stream")));
    let (content_type, body) = if events {
        ("text/event-stream", sse::body(output, query.offset.0, app.limits.keep_alive, app.stopping.clone()))
    } else {
        ("application/octet-stream", plain(output, query.stream, app.stopping.clone()))
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The bytes alone. Asked for by the body only as fast as they are taken.
fn plain(output: OutputStream, streams: Streams, stopping: CancellationToken) -> Body {
    Body::from_stream(stream::unfold((output, stopping), move |(mut output, stopping)| async move {
        loop {
            let event = tokio::select! {
                event = output.next() => event?,
                // Broken off, not ended: the reader must not take it for the whole.
                () = stopping.cancelled() => {
                    Err(ApiError::new(ErrorCode::Unavailable, "the server is stopping"))
                }
            };
            let bytes = match event {
                Ok(OutputEvent::Chunk(chunk)) => Ok(bytes_of(chunk.records.iter(), streams)),
                Ok(OutputEvent::Attempt(_)) => continue,
                Ok(OutputEvent::End(_)) => return None,
                Err(error) => Err(error),
            };
            if !bytes.as_ref().is_ok_and(Bytes::is_empty) {
                return Some((bytes, (output, stopping)));
            }
        }
    }))
}

fn bytes_of(records: impl Iterator<Item = Record>, streams: Streams) -> Bytes {
    let mut out = BytesMut::new();
    for record in records {
        match record {
            Record::Data { stream: Stream::Stdout, bytes } if streams != Streams::Stderr => {
                out.extend_from_slice(&bytes);
            }
            Record::Data { stream: Stream::Stderr, bytes } if streams != Streams::Stdout => {
                out.extend_from_slice(&bytes);
            }
            Record::Data { .. } => {}
            Record::Gap(skipped) => {
                out.extend_from_slice(format!("\n[{skipped} bytes of output were not kept]\n").as_bytes());
            }
        }
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_bytes_are_those_of_the_stream_with_gaps_as_lines() {
        let records = || {
            [
                Record::Data { stream: Stream::Stdout, bytes: Bytes::from_static(b"out") },
                Record::Gap(7),
                Record::Data { stream: Stream::Stderr, bytes: Bytes::from_static(&[0xff]) },
            ]
            .into_iter()
        };
        let gap = "\n[7 bytes of output were not kept]\n";
        assert_eq!(bytes_of(records(), Streams::Stdout), format!("out{gap}").as_bytes());
        assert_eq!(bytes_of(records(), Streams::Both), [format!("out{gap}").as_bytes(), &[0xff]].concat());
        assert_eq!(bytes_of(records(), Streams::Stderr), [gap.as_bytes(), &[0xff]].concat());
    }
}
