//! A web server for one file, and what is needed to fetch from it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};
use bytes::Bytes;
use executr_api::output::OutputChunk;
use executr_api::{ApiError, ByteStream, ErrorCode, Fence, Orders, Report, WorkerApi, WorkerCounters};
use executr_engine::binary_cache::{BinaryCache, BinaryCacheOptions};
use executr_spec::{BinaryStep, Digest};
use futures_util::StreamExt;
use http_body_util::BodyExt;

/// What the server does with the next request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Sends so many bytes and then breaks off.
    BreakAfter(usize),
    Status(StatusCode),
    Redirect(String),
}

/// What it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    pub(crate) if_range: Option<String>,
}

#[derive(Default)]
struct Inner {
    content: Bytes,
    etag: Option<String>,
    acts: VecDeque<Act>,
    asked: Vec<Asked>,
    /// A request is answered only when this is free.
    gate: Arc<tokio::sync::Mutex<()>>,
}

/// The server; it ends with the test.
#[derive(Clone)]
pub(crate) struct Web {
    inner: Arc<Mutex<Inner>>,
    address: SocketAddr,
}

impl Web {
    pub(crate) async fn serve(content: &[u8]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let inner =
            Inner { content: Bytes::copy_from_slice(content), etag: Some("\"1\"".to_owned()), ..Inner::default() };
        let web = Self { inner: Arc::new(Mutex::new(inner)), address: listener.local_addr().unwrap() };
        let router = Router::new().fallback(answer).with_state(web.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        web
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn then(&self, acts: impl IntoIterator<Item = Act>) {
        self.inner.lock().unwrap().acts.extend(acts);
    }

    pub(crate) fn change_content(&self, content: &[u8], etag: &str) {
        let mut inner = self.inner.lock().unwrap();
        inner.content = Bytes::copy_from_slice(content);
        inner.etag = Some(etag.to_owned());
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.inner.lock().unwrap().asked.clone()
    }

    pub(crate) fn gate(&self) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(&self.inner.lock().unwrap().gate)
    }
}

async fn answer(State(web): State<Web>, uri: Uri, headers: HeaderMap) -> Response<Body> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).map(str::to_owned);
    let asked = Asked { path: uri.path().to_owned(), range: text(header::RANGE), if_range: text(header::IF_RANGE) };
    let (act, content, etag) = {
        let mut inner = web.inner.lock().unwrap();
        inner.asked.push(asked.clone());
        (inner.acts.pop_front(), inner.content.clone(), inner.etag.clone())
    };
    let gate = web.gate();
    drop(gate.lock().await);
    let mut response = Response::builder();
    if let Some(etag) = &etag {
        response = response.header(header::ETAG, etag);
    }
    match act {
        Some(Act::Status(status)) => return response.status(status).body(Body::empty()).unwrap(),
        Some(Act::Redirect(to)) => {
            return response.status(StatusCode::FOUND).header(header::LOCATION, to).body(Body::empty()).unwrap();
        }
        Some(Act::BreakAfter(_)) | None => {}
    }
    let from = asked
        .range
        .as_deref()
        .filter(|_| asked.if_range == etag)
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let body = content.slice(from.unwrap_or(0)..);
    if let Some(from) = from {
        let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
        response = response.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, range);
    }
    response = response.header(header::CONTENT_LENGTH, body.len());
    let body = match act {
        Some(Act::BreakAfter(bytes)) => {
            let part = futures_util::stream::iter([Ok(body.slice(..bytes))]);
            // An end of the connection in the middle, after the part had time to leave.
            let end = futures_util::stream::once(async {
                tokio::task::yield_now().await;
                Err(std::io::Error::other("broken off"))
            });
            Body::from_stream(part.chain(end))
        }
        _ => Body::new(http_body_util::Full::new(body).map_err(|never| match never {})),
    };
    response.body(body).unwrap()
}

/// A coordinator that has one blob.
pub(crate) struct Blobs(pub(crate) Bytes);

#[async_trait]
impl WorkerApi for Blobs {
    async fn exchange(&self, _report: Report) -> Result<Orders, ApiError> {
        Err(ApiError::new(ErrorCode::Unavailable, "only blobs here"))
    }

    async fn append_output(&self, _fence: &Fence, _token: &str, _chunk: OutputChunk) -> Result<u64, ApiError> {
        Err(ApiError::new(ErrorCode::Unavailable, "only blobs here"))
    }

    async fn blob(&self, digest: Digest, offset: u64, token: &str) -> Result<ByteStream, ApiError> {
        if digest != Digest::of(&self.0) || token != "token" {
            return Err(ApiError::new(ErrorCode::NotFound, "no such blob"));
        }
        let rest = self.0.slice(offset as usize..);
        let pieces: Vec<_> = rest.chunks(1_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        Ok(futures_util::stream::iter(pieces).boxed())
    }

    async fn missing_blobs(&self, _fence: &Fence, _token: &str, _asked: Vec<Digest>) -> Result<Vec<Digest>, ApiError> {
        Err(ApiError::new(ErrorCode::Unavailable, "only one blob here"))
    }

    async fn put_blob(
        &self,
        _fence: &Fence,
        _token: &str,
        _digest: Digest,
        _bytes: ByteStream,
    ) -> Result<(), ApiError> {
        Err(ApiError::new(ErrorCode::Unavailable, "only one blob here"))
    }
}

/// A cache in a directory of the test's.
pub(crate) fn cache(directory: &Path, adjust: impl FnOnce(&mut BinaryCacheOptions)) -> BinaryCache {
    let mut options = BinaryCacheOptions::new(directory.join("cache"));
    adjust(&mut options);
    BinaryCache::open(options).unwrap()
}

pub(crate) fn binary(url: impl Into<String>, content: &[u8]) -> BinaryStep {
    BinaryStep { url: url.into(), sha256: Digest::of(content), args: vec![] }
}

pub(crate) fn nobody() -> Arc<dyn WorkerApi> {
    Arc::new(Blobs(Bytes::new()))
}

pub(crate) fn counted(cache: &BinaryCache) -> WorkerCounters {
    let mut counters = WorkerCounters::default();
    cache.count(&mut counters);
    counters
}

/// Content of so many bytes.
pub(crate) fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n % 253) as u8).collect()
}
