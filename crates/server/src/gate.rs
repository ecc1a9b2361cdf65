//! What every request passes: it gets an id, a time limit, a place in the log and in the metrics, and if its handler
//! panics it is answered all the same.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use executr_api::{ApiError, ErrorCode};
use futures_util::FutureExt;
use tracing::Instrument;
use uuid::Uuid;

use crate::app::Shared;
use crate::failure::Failure;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Goes around every route and every answer that there is none.
pub(crate) async fn pass(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(&request);
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unknown", MatchedPath::as_str);
    // Neither the query nor any header: they may hold what is secret.
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or_default(), %method, route);

    let mut response =
        AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span.clone()).await.unwrap_or_else(|_| {
            Failure::new(
                ErrorCode::Internal,
                "the server failed on this request; its log says why under the request's id",
            )
            .into_response()
        });

    let status = response.status();
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        let error = error.with("request_id", id.to_str().unwrap_or_default());
        response = Failure { status, error: error.clone() }.into_response();
        span.in_scope(|| tracing::error!(status = status.as_u16(), error = %error.message, "request failed"));
    } else {
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        span.in_scope(|| tracing::debug!(status = status.as_u16(), micros, "request answered"));
    }
    app.metrics.request(method_label(&method), route, status.as_u16(), started.elapsed());
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// The caller's id for the request if it is a sane one, else a new one.
fn request_id(request: &Request) -> HeaderValue {
    let sane = |value: &&HeaderValue| {
        (1..=128).contains(&value.len())
            && value.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte))
    };
    request.headers().get(REQUEST_ID).filter(sane).cloned().unwrap_or_else(|| {
        let mut buffer = Uuid::encode_buffer();
        let text = Uuid::new_v4().simple().encode_lower(&mut buffer);
        HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("none"))
    })
}

/// Methods are the client's words: those that mean nothing must not each make a time series.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

/// Bounds the time until an answer begins.
pub(crate) async fn within(State(time): State<Duration>, request: Request, next: Next) -> Response {
    let changes = !request.method().is_safe();
    match tokio::time::timeout(time, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let advice = if changes {
                "whether it was carried out is not known: look before you send it again, or submit with an `idempotency_key`"
            } else {
                "try again"
            };
            let text = format!("the request took longer than {time:?} and was given up; {advice}");
            Failure::new(ErrorCode::Timeout, text).into_response()
        }
    }
}

/// The answer where there is no such route.
pub(crate) async fn no_route(request: Request) -> Failure {
    Failure::new(
        ErrorCode::NotFound,
        format!("there is no {}; GET /api/v1/openapi.json lists all routes", request.uri().path().escape_debug()),
    )
}

/// The answer where the route doesn't know the method.
pub(crate) async fn no_method(request: Request) -> Failure {
    Failure::new(
        ErrorCode::BadRequest,
        format!(
            "{} can't be used with {}; GET /api/v1/openapi.json lists what can",
            request.method(),
            request.uri().path().escape_debug()
        ),
    )
    .status(StatusCode::METHOD_NOT_ALLOWED)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::body::Body;
    use axum::{Router, middleware, routing};
    use executr_coordinator::{Coordinator, Options};
    use executr_store::SystemClock;
    use executr_store::model::ModelStore;
    use http_body_util::BodyExt;
    use tokio::sync::Semaphore;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;
    use tower::ServiceExt;

    use super::*;
    use crate::app::App;
    use crate::metrics::Metrics;
    use crate::options::Limits;

    /// A router with the gate around one handler that panics and one that takes too long.
    async fn router() -> Router {
        let metrics = Arc::new(Metrics::new());
        let store = Arc::new(ModelStore::new(Arc::new(SystemClock)));
        let app = Arc::new(App {
            coordinator: Coordinator::start(store, Options::default(), metrics.clone()).await.expect("a start"),
            metrics,
            limits: Limits::default(),
            allow_anonymous: true,
            on_loopback: true,
            stopping: CancellationToken::new(),
            tracker: TaskTracker::new(),
            bulk: Arc::new(Semaphore::new(1)),
            openapi: bytes::Bytes::new(),
        });
        async fn panics() -> Response {
            panic!("the secret is 42");
        }
        async fn hangs() -> Response {
            std::future::pending().await
        }
        let late = Router::new()
            .route("/hangs", routing::get(hangs).post(hangs))
            .layer(middleware::from_fn_with_state(Duration::from_millis(1), within));
        Router::new()
            .route("/panics", routing::get(panics))
            .merge(late)
            .layer(middleware::from_fn_with_state(app.clone(), pass))
            .with_state(app)
    }

    async fn answer(method: Method, path: &str) -> (StatusCode, ApiError) {
        let request = Request::builder().method(method).uri(path).header("x-request-id", "id-1");
        let request = request.body(Body::empty()).expect("a request");
        let response = router().await.oneshot(request).await.expect("an answer");
        assert_eq!(response.headers()["x-request-id"], "id-1");
        let status = response.status();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&body).expect("an error"))
    }

    #[tokio::test]
    async fn a_panic_is_answered_with_the_id_and_nothing_of_what_it_said() {
        let (status, error) = answer(Method::GET, "/panics").await;
        assert_eq!((status.as_u16(), error.code), (500, ErrorCode::Internal));
        assert_eq!(error.context["request_id"], "id-1");
        assert!(!error.to_string().contains("42"), "{error}");
    }

    #[tokio::test]
    async fn what_takes_too_long_is_answered_all_the_same() {
        for (method, advice) in [(Method::GET, "try again"), (Method::POST, "is not known")] {
            let (status, error) = answer(method, "/hangs").await;
            assert_eq!((status.as_u16(), error.code), (504, ErrorCode::Timeout));
            assert_eq!(error.context["request_id"], "id-1");
            assert!(error.message.contains(advice), "{error}");
        }
    }
}
