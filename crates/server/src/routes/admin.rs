//! Statistics, workers and tokens.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use executr_api::{ApiError, Client, CreateToken, NewToken, StatsView, TokenView, WorkerView};
use executr_spec::TokenId;

use super::json;
use crate::access::{Administer, May, Read};
use crate::app::Shared;
use crate::body::Json;
use crate::failure::Answer;
use crate::input::Segment;

/// Count jobs and executors
#[utoipa::path(get, path = "/admin/stats", tag = "admin",
    responses((status = 200, description = "The counts.", body = StatsView)))]
pub(crate) async fn stats(State(app): State<Shared>, caller: May<Read>) -> Answer<Response> {
    Ok(json(200, &app.coordinator.client(caller.tenant).stats().await?))
}

/// List the executors heard of lately
#[utoipa::path(get, path = "/admin/executors", tag = "admin",
    responses((status = 200, description = "The executors.", body = Vec<WorkerView>)))]
pub(crate) async fn executors(State(app): State<Shared>, caller: May<Read>) -> Answer<Response> {
    Ok(json(200, &app.coordinator.client(caller.tenant).workers().await?))
}

/// Make an access token
///
/// Its secret is shown this once.
#[utoipa::path(post, path = "/admin/tokens", tag = "admin", request_body = CreateToken,
    responses((status = 201, description = "The token with its secret.", body = NewToken)))]
pub(crate) async fn create_token(
    State(app): State<Shared>,
    caller: May<Administer>,
    Json(token): Json<CreateToken>,
) -> Answer<Response> {
    Ok(json(201, &app.coordinator.client(caller.tenant).create_token(token).await?))
}

/// List access tokens
#[utoipa::path(get, path = "/admin/tokens", tag = "admin",
    responses((status = 200, description = "The tokens, without their secrets.", body = Vec<TokenView>)))]
pub(crate) async fn tokens(State(app): State<Shared>, caller: May<Administer>) -> Answer<Response> {
    Ok(json(200, &app.coordinator.client(caller.tenant).tokens().await?))
}

/// Revoke an access token
#[utoipa::path(delete, path = "/admin/tokens/{id}", tag = "admin", params(("id" = TokenId, Path)),
    responses(
        (status = 204, description = "The token is not valid any more."),
        (status = 404, description = "There is no such token.", body = ApiError),
    ))]
pub(crate) async fn revoke_token(
    State(app): State<Shared>,
    caller: May<Administer>,
    Segment(id): Segment<TokenId>,
) -> Answer<StatusCode> {
    app.coordinator.client(caller.tenant).revoke_token(id).await?;
    Ok(StatusCode::NO_CONTENT)
}
