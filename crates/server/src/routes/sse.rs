//! Output as server-sent events: <https://html.spec.whatwg.org/multipage/server-sent-events.html>.
//!
//! ```text
//! event: attempt        id: 1:0       data: {"attempt":1}
//! event: output         id: 1:6       data: {"offset":0,"records":"…base64…"}
//! event: end                          data: {"status":"completed"}
//! ```
//!
//! An id is the attempt and the position after the event, so it is where to go on. A stream that fails sends an event
//! `error` with an error as everywhere; one that ends with neither was broken off, and can be resumed.

use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use executr_api::output::OutputChunk;
use executr_api::{ApiError, OutputEvent, OutputStream};
use futures_util::{StreamExt, stream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

struct State {
    output: OutputStream,
    attempt: u32,
    /// Where the first attempt's output starts; later ones start at 0.
    start: Option<u64>,
    ended: bool,
    keep_alive: Duration,
    stopping: CancellationToken,
}

/// The events of `output`. They are made only as fast as they are taken: a slow reader stalls itself alone.
pub(crate) fn body(output: OutputStream, offset: u64, keep_alive: Duration, stopping: CancellationToken) -> Body {
    let state = State { output, attempt: 0, start: Some(offset), ended: false, keep_alive, stopping };
    Body::from_stream(stream::unfold(state, |mut state| async move {
        let bytes = state.next().await?;
        Some((Ok::<_, ApiError>(bytes), state))
    }))
}

impl State {
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let event = tokio::select! {
            event = timeout(self.keep_alive, self.output.next()) => event,
            () = self.stopping.cancelled() => return None,
        };
        let text = match event {
            Err(_) => return Some(Bytes::from_static(b": still here\n\n")),
            Ok(None) => return None,
            Ok(Some(Ok(OutputEvent::Attempt(attempt)))) => {
                self.attempt = attempt;
                let start = self.start.take().unwrap_or(0);
                format!("event: attempt\nid: {attempt}:{start}\ndata: {{\"attempt\":{attempt}}}\n\n")
            }
            Ok(Some(Ok(OutputEvent::Chunk(chunk)))) => output_event(self.attempt, &chunk),
            Ok(Some(Ok(OutputEvent::End(status)))) => {
                self.ended = true;
                format!("event: end\ndata: {{\"status\":\"{status}\"}}\n\n")
            }
            Ok(Some(Err(error))) => {
                self.ended = true;
                format!("event: error\ndata: {}\n\n", serde_json::to_string(&error).unwrap_or_default())
            }
        };
        Some(text.into())
    }
}

fn output_event(attempt: u32, chunk: &OutputChunk) -> String {
    let records = chunk.records.as_bytes();
    let mut text = String::with_capacity(records.len() / 3 * 4 + 128);
    text.push_str(&format!(
        "event: output\nid: {attempt}:{}\ndata: {{\"offset\":{},\"records\":\"",
        chunk.end(),
        chunk.offset
    ));
    STANDARD.encode_string(records, &mut text);
    text.push_str("\"}\n\n");
    text
}

#[cfg(test)]
mod tests {
    use executr_api::JobStatus;
    use executr_api::output::{RecordWriter, Stream};
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn events_carry_where_to_go_on() {
        let mut writer = RecordWriter::default();
        writer.push(Stream::Stdout, b"hello");
        let chunk = OutputChunk { offset: 2, records: writer.take() };
        let records = STANDARD.encode(chunk.records.as_bytes());
        let events = [OutputEvent::Attempt(3), OutputEvent::Chunk(chunk), OutputEvent::End(JobStatus::Completed)];
        let output = stream::iter(events.map(Ok)).boxed();
        let body = body(output, 2, Duration::from_secs(15), CancellationToken::new());
        let text = body.collect().await.expect("a body").to_bytes();
        assert_eq!(
            String::from_utf8_lossy(&text),
            format!(
                "event: attempt\nid: 3:2\ndata: {{\"attempt\":3}}\n\n\
                 event: output\nid: 3:7\ndata: {{\"offset\":2,\"records\":\"{records}\"}}\n\n\
                 event: end\ndata: {{\"status\":\"completed\"}}\n\n"
            )
        );
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
