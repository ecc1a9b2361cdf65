//! Bodies, bounded in size and time.

use std::fmt;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};
use executr_api::ErrorCode;
use http_body_util::BodyExt;
use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Duration, Instant, timeout, timeout_at};

use crate::app::{App, BULK_UNIT, Shared};
use crate::failure::{Answer, Failure};

/// So much of a body that is too large is read and thrown away, so that its sender gets to read why.
const DRAINED: usize = 64 << 20;
/// And so long.
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// A body of JSON of the ordinary size.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Shared> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &Shared) -> Answer<Self> {
        let bytes = read(request.into_body(), app.limits.json, app.limits.request_time).await?;
        parse(&bytes).map(Self)
    }
}

/// A body of JSON that may carry output.
pub(crate) struct LargeJson<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Shared> for LargeJson<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &Shared) -> Answer<Self> {
        let bytes = read(request.into_body(), app.limits.results, app.limits.request_time).await?;
        parse(&bytes).map(Self)
    }
}

/// A body of output records.
pub(crate) struct OutputBytes(pub(crate) Bytes);

impl FromRequest<Shared> for OutputBytes {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &Shared) -> Answer<Self> {
        read(request.into_body(), app.limits.output, app.limits.request_time).await.map(Self)
    }
}

/// A bulk body, and the right to have so much of it in memory.
pub(crate) struct Bulk {
    pub(crate) bytes: Bytes,
    pub(crate) permit: OwnedSemaphorePermit,
}

impl FromRequest<Shared> for Bulk {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &Shared) -> Answer<Self> {
        let limit = app.limits.bulk;
        let body = request.into_body();
        let announced = body.size_hint().exact().and_then(|size| usize::try_from(size).ok());
        if announced.is_some_and(|size| size > limit) {
            drain(body).await;
            return Err(too_large(limit));
        }
        let permit = reserve(app, announced.unwrap_or(limit)).await?;
        let bytes = read(body, limit, app.limits.bulk_time).await?;
        Ok(Self { bytes, permit })
    }
}

/// Waits until so many bytes of bulk bodies may be in memory besides those that are.
async fn reserve(app: &App, size: usize) -> Answer<OwnedSemaphorePermit> {
    let size = size.min(app.limits.bulk_together);
    let units = u32::try_from(size.div_ceil(BULK_UNIT)).unwrap_or(u32::MAX);
    match timeout(app.limits.bulk_time, app.bulk.clone().acquire_many_owned(units)).await {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(_)) => Err(Failure::new(ErrorCode::Unavailable, "the server is stopping; try again")),
        Err(_) => Err(Failure::new(
            ErrorCode::TooMany,
            "too many bulk requests at once; try again later, or with fewer at a time",
        )),
    }
}

/// Reads a whole body of at most `limit` bytes in at most `time`.
pub(crate) async fn read(mut body: Body, limit: usize, time: Duration) -> Answer<Bytes> {
    let hint = body.size_hint();
    if hint.lower() > limit as u64 {
        drain(body).await;
        return Err(too_large(limit));
    }
    let end = Instant::now() + time;
    let mut first: Option<Bytes> = None;
    let mut gathered = BytesMut::new();
    loop {
        let frame = timeout_at(end, body.frame()).await.map_err(|_| {
            Failure::new(ErrorCode::Timeout, format!("the body didn't arrive within {time:?}; send it faster"))
                .status(StatusCode::REQUEST_TIMEOUT)
        })?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| {
            Failure::new(ErrorCode::BadRequest, format!("the body broke off: {error}; send it whole"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        let so_far = gathered.len() + first.as_ref().map_or(0, Bytes::len);
        if so_far + data.len() > limit {
            drain(body).await;
            return Err(too_large(limit));
        }
        // Most bodies are one piece, which needs no copy.
        match (&first, gathered.is_empty()) {
            (None, true) => first = Some(data),
            _ => {
                if let Some(first) = first.take() {
                    let size = usize::try_from(hint.lower()).unwrap_or(0).min(limit);
                    gathered.reserve(size.max(first.len() + data.len()));
                    gathered.extend_from_slice(&first);
                }
                gathered.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| gathered.freeze()))
}

async fn drain(mut body: Body) {
    let mut left = DRAINED;
    let drained = async {
        while let Some(Ok(frame)) = body.frame().await {
            match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    // Not finishing is fine: the connection is closed then.
    let _ = timeout(DRAIN_TIME, drained).await;
}

fn too_large(limit: usize) -> Failure {
    Failure::new(ErrorCode::TooLarge, format!("the body is too large; at most {limit} bytes are taken here"))
        .with("limit", limit)
}

/// Reads JSON; an error names line, column and, as far as known, the field.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Answer<T> {
    parse_seed(bytes, std::marker::PhantomData)
}

fn parse_seed<'de, S: DeserializeSeed<'de> + Clone>(bytes: &'de [u8], seed: S) -> Answer<S::Value> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let read = seed.clone().deserialize(&mut json).and_then(|value| json.end().map(|()| value));
    read.map_err(|error| {
        if bytes.is_empty() {
            return Failure::new(ErrorCode::BadRequest, "the body is empty; send JSON");
        }
        // Read again, slower, to know where in the value it happened.
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let mut track = serde_path_to_error::Track::new();
        let again = seed.deserialize(serde_path_to_error::Deserializer::new(&mut json, &mut track));
        let path = track.path().to_string();
        let at = if again.is_err() && path != "." { format!("{path}: ") } else { String::new() };
        let mut failure = Failure::new(ErrorCode::BadRequest, format!("the JSON can't be taken: {at}{error}"))
            .with("line", error.line())
            .with("column", error.column());
        if !at.is_empty() {
            failure = failure.with("field", path);
        }
        failure
    })
}

/// Reads a JSON array of at most `most` entries. The bound holds while reading: a small body can hold very many small
/// entries, each of which is large once read.
pub(crate) fn parse_array<T: DeserializeOwned>(bytes: &[u8], most: usize) -> Answer<Vec<T>> {
    parse_seed(bytes, Capped { most, entries: std::marker::PhantomData })
}

/// Reads an array of at most `most` entries.
struct Capped<T> {
    most: usize,
    entries: std::marker::PhantomData<T>,
}

impl<T> Clone for Capped<T> {
    fn clone(&self) -> Self {
        Self { most: self.most, entries: std::marker::PhantomData }
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Capped<T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Capped<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of at most {} entries", self.most)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Vec<T>, A::Error> {
        let mut taken = Vec::new();
        while let Some(entry) = entries.next_element()? {
            if taken.len() == self.most {
                return Err(A::Error::custom(format!(
                    "more than {} entries; send them in several requests",
                    self.most
                )));
            }
            taken.push(entry);
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use executr_api::Submission;

    use super::*;

    #[test]
    fn an_error_names_line_column_and_field() {
        let failure = parse::<Submission>(b"{\"steps\":\n [{\"run\": 3}]}").expect_err("a number");
        assert_eq!(failure.error.context["line"], "2");
        assert!(failure.error.context["field"].starts_with("steps[0]"), "{:?}", failure.error);
        let failure = parse::<Submission>(b"{\"type\": 7}").expect_err("a number");
        assert_eq!(failure.error.context["field"], "type");
        let failure = parse::<Submission>(b"{} {}").expect_err("two values");
        assert!(failure.error.message.contains("trailing"), "{:?}", failure.error);
        let failure = parse::<Submission>(b"").expect_err("nothing");
        assert!(failure.error.message.contains("empty"), "{:?}", failure.error);
    }

    #[test]
    fn arrays_are_bounded_while_they_are_read() {
        assert_eq!(parse_array::<u8>(b"[1,2,3]", 3).expect("three"), [1, 2, 3]);
        let failure = parse_array::<u8>(b"[1,2,3,4", 3).expect_err("four");
        assert!(failure.error.message.contains("more than 3 entries"), "{:?}", failure.error);
        let failure = parse_array::<Submission>(br#"[{},{"priority":"x"}]"#, 3).expect_err("a wrong one");
        assert_eq!(failure.error.context["field"], "[1].priority");
    }

    #[tokio::test]
    async fn bodies_are_bounded_in_size_and_time() {
        let pieces = |size: usize| {
            Body::from_stream(futures_util::stream::iter(
                (0..4).map(move |_| Ok::<_, std::convert::Infallible>(Bytes::from(vec![7; size]))),
            ))
        };
        let time = Duration::from_secs(60);
        assert_eq!(read(pieces(5), 20, time).await.expect("20 bytes").len(), 20);
        assert_eq!(read(pieces(6), 20, time).await.expect_err("24 bytes").status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(read(Body::from(vec![0; 21]), 20, time).await.expect_err("21").status, 413);
        let never = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::convert::Infallible>>());
        assert_eq!(read(never, 20, Duration::ZERO).await.expect_err("nothing").status, StatusCode::REQUEST_TIMEOUT);
    }
}
