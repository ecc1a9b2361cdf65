//! The client itself: how a request is made, sent, sent again, and its answer read.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use executr_api::{ApiError, ErrorCode, RetryDelay};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure;
use crate::options::ClientOptions;
use crate::server_url::ServerUrl;
use crate::tls;

/// How often a call is sent at most.
const SENDS: u32 = 3;

/// A connection to a server. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct HttpClient {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    http: reqwest::Client,
    server: ServerUrl,
    authorization: Option<HeaderValue>,
    pub(crate) options: ClientOptions,
}

/// Whether a call may be sent again after it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Sent twice it does what it does sent once.
    Harmless,
    /// Only when it certainly never reached the server.
    IfUnsent,
    /// The caller decides.
    No,
}

impl HttpClient {
    /// Makes a client. Nothing is sent yet.
    ///
    /// # Errors
    /// `BadRequest` when the address, the token or the file with authorities can't be used.
    pub fn new(options: ClientOptions) -> Result<Self, ApiError> {
        let server = ServerUrl::parse(&options.server_url)?;
        let tls = tls::config(server.https, options.ca_cert.as_deref())?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(&options.user_agent)
            .connect_timeout(options.connect_timeout)
            // Below the time after which the server closes idle connections, so that a call never meets a closing one.
            .pool_idle_timeout(Duration::from_secs(30))
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| ApiError::new(ErrorCode::BadRequest, format!("the client can't be set up: {error}")))?;
        let authorization = options.token.as_deref().map(bearer).transpose()?;
        Ok(Self { inner: Arc::new(Inner { http, server, authorization, options }) })
    }

    /// Scheme, host and port of the server, for people.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.inner.server.shown
    }

    /// A request for the route `path`, bounded by the ordinary timeout.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.bare(method, path).timeout(self.inner.options.timeout);
        match &self.inner.authorization {
            Some(value) => request.header(AUTHORIZATION, value),
            None => request,
        }
    }

    /// A request with `token` in place of the client's own, when there is one.
    pub(crate) fn request_as(&self, token: &str, method: Method, path: &str) -> Result<RequestBuilder, ApiError> {
        if token.is_empty() {
            return Ok(self.request(method, path));
        }
        Ok(self.bare(method, path).timeout(self.inner.options.timeout).header(AUTHORIZATION, bearer(token)?))
    }

    fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.inner.http.request(method, self.inner.server.route(path))
    }

    /// Sends a request, again if that is allowed and may help, and returns a good answer.
    pub(crate) async fn send(&self, request: RequestBuilder, repeat: Repeat) -> Result<Response, ApiError> {
        let mut delay = RetryDelay::new(Duration::from_millis(100), Duration::from_secs(1));
        let mut request = Some(request);
        for send in 1.. {
            let Some(now) = request.take() else { break };
            request = if repeat == Repeat::No || send == SENDS { None } else { now.try_clone() };
            let error = match self.send_once(now).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let may = match repeat {
                Repeat::Harmless => error.code.is_transient() && error.code != ErrorCode::Internal,
                Repeat::IfUnsent => failure::never_sent(&error),
                Repeat::No => false,
            };
            if request.is_none() || !may {
                return Err(error);
            }
            tracing::debug!(%error, send, "a call failed and is sent again");
            tokio::time::sleep(delay.next_delay()).await;
        }
        Err(ApiError::new(ErrorCode::Internal, "a request could not be sent"))
    }

    async fn send_once(&self, request: RequestBuilder) -> Result<Response, ApiError> {
        let response = request.send().await.map_err(|error| self.translate(&error))?;
        if response.status().is_success() || response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        Err(self.refusal(response).await)
    }

    /// What an answer with another status than a good one says.
    async fn refusal(&self, response: Response) -> ApiError {
        let status = response.status();
        match response.bytes().await.map(|body| serde_json::from_slice::<ApiError>(&body)) {
            Ok(Ok(error)) => error,
            Ok(Err(_)) => ApiError::new(
                ErrorCode::from_status(status.as_u16()),
                format!(
                    "{} answered {status}, not as an Executr server does; check the address",
                    self.inner.server.shown
                ),
            )
            .with("status", status.as_u16()),
            Err(error) => self.translate(&error),
        }
    }

    /// Reads a whole answer.
    pub(crate) async fn json<T: DeserializeOwned>(&self, response: Response) -> Result<T, ApiError> {
        let body = response.bytes().await.map_err(|error| self.translate(&error))?;
        self.decode(&body)
    }

    pub(crate) fn decode<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ApiError> {
        serde_json::from_slice(body).map_err(|error| {
            ApiError::new(
                ErrorCode::Internal,
                format!(
                    "{} sent an answer that can't be read ({error}); are client and server of versions that fit?",
                    self.inner.server.shown
                ),
            )
        })
    }

    /// What a transport error means.
    pub(crate) fn translate(&self, error: &reqwest::Error) -> ApiError {
        failure::translate(&self.inner.server, error)
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

/// Puts `value` into a request as JSON.
pub(crate) fn with_json(request: RequestBuilder, value: &impl Serialize) -> Result<RequestBuilder, ApiError> {
    let body = serde_json::to_vec(value)
        .map_err(|error| ApiError::new(ErrorCode::BadRequest, format!("this can't be written as JSON: {error}")))?;
    Ok(request.header(CONTENT_TYPE, "application/json").body(Bytes::from(body)))
}

fn bearer(token: &str) -> Result<HeaderValue, ApiError> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim())).map_err(|_| {
        ApiError::new(ErrorCode::BadRequest, "the token holds characters that no token has; give it as it was printed")
    })?;
    value.set_sensitive(true);
    Ok(value)
}
