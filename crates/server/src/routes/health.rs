//! What operators' programs ask: is it alive, can it work, what does it count, what can it do.

use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use executr_api::ApiError;
use serde::Serialize;
use utoipa::ToSchema;

use super::json;
use crate::access::{May, Read};
use crate::app::Shared;
use crate::failure::Answer;

/// How the server is.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    /// `healthy` or `unhealthy`.
    status: &'static str,
    /// `connected` or `disconnected`.
    database: &'static str,
}

/// What is wrong with the server.
#[derive(Serialize, ToSchema)]
pub(crate) struct Sick {
    #[serde(flatten)]
    health: Health,
    #[serde(flatten)]
    error: ApiError,
}

/// Ask whether the server can work
#[utoipa::path(get, path = "/health", tag = "server",
    responses(
        (status = 200, description = "It can.", body = Health),
        (status = 503, description = "It can't reach its database, or is stopping.", body = Sick),
    ))]
pub(crate) async fn health(State(app): State<Shared>) -> Response {
    match app.coordinator.health().await {
        Ok(()) => json(200, &Health { status: "healthy", database: "connected" }),
        Err(error) => {
            let health = Health { status: "unhealthy", database: "disconnected" };
            json(503, &Sick { health, error })
        }
    }
}

/// Answers as long as the process runs.
pub(crate) async fn live() -> Response {
    json(200, &serde_json::json!({"status": "alive"}))
}

/// Prometheus metrics
#[utoipa::path(get, path = "/metrics", tag = "server",
    responses((status = 200, description = "The metrics.", body = String, content_type = "text/plain")))]
pub(crate) async fn metrics(State(app): State<Shared>, _caller: May<Read>) -> Answer<Response> {
    let text = app.metrics.text(&app.coordinator.gauges().await?);
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"))], text).into_response())
}

/// This document
#[utoipa::path(get, path = "/openapi.json", tag = "server",
    responses((status = 200, description = "The OpenAPI document.", body = serde_json::Value)))]
pub(crate) async fn openapi(State(app): State<Shared>) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], app.openapi.clone()).into_response()
}
