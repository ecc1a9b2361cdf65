//! The routes, one module per thing they are about.
//!
//! Handlers take what the extractors checked, call the coordinator, and say with which status its answer goes out.

mod admin;
mod blobs;
mod bulk;
mod consoles;
mod health;
mod jobs;
mod original;
mod output;
mod resume;
mod run_events;
mod runs;
mod sse;
mod waiting;
mod worker;

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use axum::{Router, middleware};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::Shared;
use crate::gate;
use crate::options::Limits;

/// What all paths begin with.
pub(crate) const PREFIX: &str = "/api/v1";

/// All routes behind the gate.
pub(crate) fn router(app: &Shared) -> Router {
    let (api, _) = documented(&app.limits).split_for_parts();
    Router::new()
        .merge(api)
        .route("/livez", axum::routing::get(health::live))
        .route("/readyz", axum::routing::get(health::health))
        .fallback(gate::no_route)
        .method_not_allowed_fallback(gate::no_method)
        .layer(middleware::from_fn_with_state(app.clone(), gate::pass))
        .with_state(app.clone())
}

/// The routes under [`PREFIX`] with their documentation; each group with the time that its requests may take.
pub(crate) fn documented(limits: &Limits) -> OpenApiRouter<Shared> {
    let within = |routes: OpenApiRouter<Shared>, time: Duration| {
        routes.layer(middleware::from_fn_with_state(time, gate::within))
    };
    let ordinary = OpenApiRouter::new()
        .routes(routes!(jobs::submit, jobs::list))
        .routes(routes!(jobs::get, jobs::cancel_pending))
        .routes(routes!(original::claim))
        .routes(routes!(original::heartbeat))
        .routes(routes!(original::complete))
        .routes(routes!(original::fail))
        .routes(routes!(output::read))
        .routes(routes!(consoles::open))
        .routes(routes!(consoles::join))
        .routes(routes!(worker::append_output))
        .routes(routes!(blobs::get, blobs::head))
        .routes(routes!(blobs::missing))
        .routes(routes!(blobs::missing_for_attempt))
        .routes(routes!(admin::stats))
        .routes(routes!(admin::executors))
        .routes(routes!(admin::create_token, admin::tokens))
        .routes(routes!(admin::revoke_token))
        .routes(routes!(runs::list))
        .routes(routes!(runs::get))
        .routes(routes!(runs::jobs))
        .routes(routes!(runs::plan))
        .routes(routes!(runs::run_artifacts))
        .routes(routes!(runs::artifacts))
        .routes(routes!(runs::cancel))
        .routes(routes!(run_events::read))
        .routes(routes!(health::health))
        .routes(routes!(health::metrics))
        .routes(routes!(health::openapi));
    let bulk = OpenApiRouter::new()
        .routes(routes!(bulk::submit))
        .routes(routes!(bulk::cancel))
        .routes(routes!(runs::submit))
        .routes(routes!(runs::rerun));
    let waiting = OpenApiRouter::new()
        .routes(routes!(worker::exchange))
        .routes(routes!(waiting::wait))
        .routes(routes!(waiting::cancel))
        .routes(routes!(runs::wait));
    // Bounded by its progress.
    let uploads = OpenApiRouter::new().routes(routes!(blobs::put)).routes(routes!(blobs::put_of_attempt));

    let all = within(ordinary, limits.request_time)
        .merge(within(bulk, limits.bulk_time + limits.request_time))
        .merge(within(waiting, limits.wait_time + limits.request_time))
        .merge(uploads);
    OpenApiRouter::new().nest(PREFIX, all)
}

/// Bytes as they are, in the documentation.
#[derive(utoipa::ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "it stands for what is never made: bodies are streams")]
pub(crate) struct RawBytes(Vec<u8>);

/// JSON with a status.
fn json(status: u16, value: &impl serde::Serialize) -> Response {
    use axum::http::header::CONTENT_TYPE;
    use axum::http::{HeaderValue, StatusCode};
    match serde_json::to_vec(value) {
        Ok(body) => {
            let mut response = Response::new(body.into());
            *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(error) => crate::failure::Failure::new(
            executr_api::ErrorCode::Internal,
            format!("the answer can't be written as JSON: {error}"),
        )
        .into_response(),
    }
}
