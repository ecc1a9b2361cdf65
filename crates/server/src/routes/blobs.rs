//! Blobs: bytes by their SHA-256.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use bytes::Bytes;
use executr_api::{ApiError, BlobList, ByteStream, Client, ErrorCode, Fence, WorkerApi};
use executr_spec::{Digest, JobId, LeaseId, Tenant};
use futures_util::{Stream, StreamExt, stream};
use serde::Deserialize;
use tokio::time::timeout;
use utoipa::IntoParams;

use super::{RawBytes, json};
use crate::access::{May, MayAppend, MayReadBlobs, Submit};
use crate::app::{App, Shared};
use crate::body::Json;
use crate::failure::{Answer, Failure};
use crate::input::{Query, Segment};

/// Read a blob
///
/// Whole, or the one range that is asked for.
#[utoipa::path(get, path = "/blobs/{digest}", tag = "blobs",
    params(
        ("digest" = Digest, Path, description = "Its SHA-256"),
        ("range" = Option<String>, Header, description = "`bytes=FIRST-LAST`, `bytes=FIRST-` or `bytes=-COUNT`"),
    ),
    responses(
        (status = 200, description = "All of it.", body = inline(RawBytes), content_type = "application/octet-stream"),
        (status = 206, description = "The range.", body = inline(RawBytes), content_type = "application/octet-stream"),
        (status = 404, description = "There is no such blob.", body = ApiError),
        (status = 416, description = "The range starts after the end; the context says the `size`.", body = ApiError),
    ))]
pub(crate) async fn get(
    State(app): State<Shared>,
    _right: MayReadBlobs,
    Segment(digest): Segment<Digest>,
    headers: HeaderMap,
) -> Answer<Response<Body>> {
    let size = size(&app, digest).await?;
    let (first, length) = match range(&headers, size)? {
        None => (0, size),
        Some(range) => range,
    };
    let body = if length == 0 {
        Body::empty()
    } else {
        Body::from_stream(taking(app.coordinator.blob(digest, first, "").await?, length))
    };
    let mut response = head_of(digest, length, body);
    if length < size {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        response.headers_mut().insert(CONTENT_RANGE, text(&format!("bytes {first}-{}/{size}", first + length - 1)));
    }
    Ok(response)
}

/// Ask for a blob
///
/// Asking keeps it for another day.
#[utoipa::path(head, path = "/blobs/{digest}", tag = "blobs", params(("digest" = Digest, Path, description = "Its SHA-256")),
    responses(
        (status = 200, description = "It is here; the content length is its size."),
        (status = 404, description = "There is no such blob."),
    ))]
pub(crate) async fn head(
    State(app): State<Shared>,
    _right: MayReadBlobs,
    Segment(digest): Segment<Digest>,
) -> Answer<Response<Body>> {
    Ok(head_of(digest, size(&app, digest).await?, Body::empty()))
}

/// Upload a blob
///
/// The bytes must hash to the digest in the path. Uploading what is there already changes nothing.
#[utoipa::path(put, path = "/blobs/{digest}", tag = "blobs", params(("digest" = Digest, Path, description = "Its SHA-256")),
    request_body(content = inline(Option<RawBytes>), content_type = "application/octet-stream"),
    responses((status = 201, description = "It is here.")))]
pub(crate) async fn put(
    State(app): State<Shared>,
    caller: May<Submit>,
    Segment(digest): Segment<Digest>,
    request: Request,
) -> Answer<StatusCode> {
    let bytes = body(&app, request)?;
    app.coordinator.client(caller.tenant).put_blob(digest, bytes).await?;
    Ok(StatusCode::CREATED)
}

/// Ask which blobs are missing
///
/// Asking keeps those that are there for another day.
#[utoipa::path(post, path = "/blobs/missing", tag = "blobs", request_body = BlobList,
    responses((status = 200, description = "Those that are not here, in the order asked about.", body = BlobList)))]
pub(crate) async fn missing(
    State(app): State<Shared>,
    _right: MayReadBlobs,
    Json(asked): Json<BlobList>,
) -> Answer<Response<Body>> {
    let digests = app.coordinator.client(Tenant::default()).missing_blobs(asked.digests).await?;
    Ok(json(200, &BlobList { digests }))
}

/// Under which lease a blob is brought or asked about.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LeaseQuery {
    /// The job.
    job: JobId,
    /// The attempt.
    attempt: u32,
    /// The lease.
    lease: LeaseId,
}

impl LeaseQuery {
    fn fence(&self) -> Fence {
        Fence { job: self.job, attempt: self.attempt, lease: self.lease }
    }
}

/// Upload a blob that a running attempt made
///
/// Taken only while the lease is held, from the first byte to the last.
#[utoipa::path(put, path = "/worker/blobs/{digest}", tag = "worker",
    params(("digest" = Digest, Path, description = "Its SHA-256"), LeaseQuery),
    request_body(content = inline(Option<RawBytes>), content_type = "application/octet-stream"),
    responses(
        (status = 201, description = "It is here."),
        (status = 409, description = "The lease is lost.", body = ApiError),
    ))]
pub(crate) async fn put_of_attempt(
    State(app): State<Shared>,
    right: MayAppend,
    Segment(digest): Segment<Digest>,
    Query(query): Query<LeaseQuery>,
    request: Request,
) -> Answer<StatusCode> {
    let fence = query.fence();
    right.covers(&fence)?;
    let bytes = body(&app, request)?;
    app.coordinator.put_blob(&fence, "", digest, bytes).await?;
    Ok(StatusCode::CREATED)
}

/// Ask which blobs are missing, as a running attempt
///
/// Asking keeps those that are there for another day.
#[utoipa::path(post, path = "/worker/blobs/missing", tag = "worker", params(LeaseQuery), request_body = BlobList,
    responses(
        (status = 200, description = "Those that are not here, in the order asked about.", body = BlobList),
        (status = 409, description = "The lease is lost.", body = ApiError),
    ))]
pub(crate) async fn missing_for_attempt(
    State(app): State<Shared>,
    right: MayAppend,
    Query(query): Query<LeaseQuery>,
    Json(asked): Json<BlobList>,
) -> Answer<Response<Body>> {
    let fence = query.fence();
    right.covers(&fence)?;
    let digests = app.coordinator.missing_blobs(&fence, "", asked.digests).await?;
    Ok(json(200, &BlobList { digests }))
}

/// A blob on its way in: bounded in size as announced, and in the time it may stand still.
fn body(app: &App, request: Request) -> Answer<ByteStream> {
    let most = app.coordinator.options().max_blob_bytes;
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|size| size > most) {
        return Err(Failure::new(
            ErrorCode::TooLarge,
            format!("the blob is too large; at most {most} bytes are taken"),
        )
        .with("limit", most));
    }
    let stall = app.limits.stall_time;
    let bytes = stream::unfold(Some(request.into_body().into_data_stream()), move |body| async move {
        let mut body = body?;
        match timeout(stall, body.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(part))) => Some((Ok(part), Some(body))),
            Ok(Some(Err(error))) => {
                let broken =
                    ApiError::new(ErrorCode::BadRequest, format!("the upload broke off: {error}; send it again"));
                Some((Err(broken), None))
            }
            Err(_) => {
                let stalled =
                    ApiError::new(ErrorCode::Timeout, format!("the upload stood still for {stall:?}; send it again"));
                Some((Err(stalled), None))
            }
        }
    });
    Ok(bytes.boxed())
}

async fn size(app: &App, digest: Digest) -> Answer<u64> {
    app.coordinator.blob_size(digest).await?.ok_or_else(|| {
        Failure::new(ErrorCode::NotFound, format!("there is no blob {digest}; upload it with PUT first"))
    })
}

fn head_of(digest: Digest, length: u64, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(ETAG, text(&format!("\"{digest}\"")));
    response
}

fn text(value: &str) -> HeaderValue {
    // Digits, hexadecimal digits and punctuation.
    HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(""))
}

/// The first `length` bytes.
fn taking(bytes: ByteStream, length: u64) -> impl Stream<Item = Result<Bytes, ApiError>> {
    stream::unfold((bytes, length), |(mut bytes, left)| async move {
        if left == 0 {
            return None;
        }
        let part = bytes.next().await?.map(|mut part| {
            part.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            part
        });
        let left = part.as_ref().map_or(0, |part| left - part.len() as u64);
        Some((part, (bytes, left)))
    })
}

/// First byte and length of the range asked for; `None` for all of it. Several ranges at once, and units other than
/// bytes, are answered with all of it, as RFC 9110 allows.
fn range(headers: &HeaderMap, size: u64) -> Answer<Option<(u64, u64)>> {
    let Some(text) =
        headers.get(RANGE).and_then(|value| value.to_str().ok()).and_then(|text| text.strip_prefix("bytes="))
    else {
        return Ok(None);
    };
    let Some((first, last)) = text.trim().split_once('-') else { return Ok(None) };
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last && first < size => Some((first, last.min(size - 1) - first + 1)),
        (Ok(first), Ok(last)) if last < first => return Ok(None),
        (Ok(first), Err(_)) if last.is_empty() && first < size => Some((first, size - first)),
        (Err(_), Ok(count)) if first.is_empty() && count > 0 && size > 0 => {
            let count = count.min(size);
            Some((size - count, count))
        }
        (Ok(_), Ok(_)) => None,
        (Ok(_), Err(_)) if last.is_empty() => None,
        (Err(_), Ok(_)) if first.is_empty() => None,
        _ => return Ok(None),
    };
    match range {
        Some(range) => Ok(Some(range)),
        None => Err(Failure::new(ErrorCode::BadRequest, format!("the range lies outside the blob's {size} bytes"))
            .with("size", size)
            .status(StatusCode::RANGE_NOT_SATISFIABLE)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static str, size: u64) -> Option<Option<(u64, u64)>> {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, HeaderValue::from_static(text));
        range(&headers, size).ok()
    }

    #[test]
    fn ranges_are_read_as_rfc_9110_has_them() {
        for (text, size, range) in [
            ("bytes=0-3", 10, Some(Some((0, 4)))),
            ("bytes=4-", 10, Some(Some((4, 6)))),
            ("bytes=4-99", 10, Some(Some((4, 6)))),
            ("bytes=-3", 10, Some(Some((7, 3)))),
            ("bytes=-30", 10, Some(Some((0, 10)))),
            ("bytes=10-", 10, None),
            ("bytes=0-", 0, None),
            ("bytes=-0", 10, None),
            ("bytes=5-4", 10, Some(None)),
            ("bytes=0-1,4-5", 10, Some(None)),
            ("bytes=x-y", 10, Some(None)),
            ("lines=0-1", 10, Some(None)),
        ] {
            assert_eq!(read(text, size), range, "{text} of {size}");
        }
    }
}
