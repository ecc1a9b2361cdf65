//! What the original's executor calls: one job a claim, by polling. Executr's own workers use the exchange.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use executr_api::{ApiError, JobView};
use executr_coordinator::OriginalEnd;
use executr_spec::{JobId, WorkerId};
use serde::Deserialize;
use utoipa::ToSchema;

use super::json;
use crate::access::{Execute, May};
use crate::app::Shared;
use crate::body::{Json, LargeJson};
use crate::failure::Answer;
use crate::input::Segment;

/// Who wants a job.
#[derive(Deserialize, ToSchema)]
pub(crate) struct ClaimRequest {
    /// The executor's id.
    #[schema(min_length = 1)]
    executor_id: String,
    /// The executor's address.
    executor_ip: Option<String>,
}

/// Claim a job
///
/// One job with a single binary step of the queue `default`.
#[utoipa::path(post, path = "/jobs/claim", tag = "original executor", request_body = ClaimRequest,
    responses(
        (status = 200, description = "The job.", body = JobView),
        (status = 204, description = "There is none."),
    ))]
pub(crate) async fn claim(
    State(app): State<Shared>,
    _caller: May<Execute>,
    Json(request): Json<ClaimRequest>,
) -> Answer<Response> {
    let claimed = app.coordinator.claim_for_original(WorkerId(request.executor_id), request.executor_ip).await?;
    Ok(match claimed {
        Some(job) => json(200, &job),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

/// Who is alive.
#[derive(Deserialize, ToSchema)]
pub(crate) struct HeartbeatRequest {
    /// The executor's id.
    executor_id: String,
}

/// Say that a job still runs
#[utoipa::path(put, path = "/jobs/{id}/heartbeat", tag = "original executor", params(("id" = JobId, Path)),
    request_body = HeartbeatRequest,
    responses(
        (status = 204, description = "The lease is prolonged."),
        (status = 404, description = "There is no such job, or this executor doesn't run it.", body = ApiError),
    ))]
pub(crate) async fn heartbeat(
    State(app): State<Shared>,
    _caller: May<Execute>,
    Segment(id): Segment<JobId>,
    Json(request): Json<HeartbeatRequest>,
) -> Answer<StatusCode> {
    app.coordinator.heartbeat_original(id, &WorkerId(request.executor_id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How a job ended.
#[derive(Deserialize, ToSchema)]
pub(crate) struct EndRequest {
    /// The executor's id.
    executor_id: String,
    /// All of standard output.
    #[serde(default)]
    stdout: Option<String>,
    /// All of standard error.
    #[serde(default)]
    stderr: Option<String>,
    /// The exit code.
    #[serde(default)]
    exit_code: Option<i32>,
    /// Why it failed; for `fail`.
    #[serde(default)]
    error_message: Option<String>,
}

impl EndRequest {
    fn split(self, succeeded: bool) -> (WorkerId, OriginalEnd) {
        let end = OriginalEnd {
            succeeded,
            stdout: self.stdout.unwrap_or_default(),
            stderr: self.stderr.unwrap_or_default(),
            exit_code: self.exit_code,
            error_message: self.error_message,
        };
        (WorkerId(self.executor_id), end)
    }
}

/// Report that a job ended well
#[utoipa::path(put, path = "/jobs/{id}/complete", tag = "original executor", params(("id" = JobId, Path)),
    request_body = EndRequest,
    responses(
        (status = 204, description = "The result is taken."),
        (status = 404, description = "There is no such job.", body = ApiError),
    ))]
pub(crate) async fn complete(
    State(app): State<Shared>,
    _caller: May<Execute>,
    Segment(id): Segment<JobId>,
    LargeJson(request): LargeJson<EndRequest>,
) -> Answer<StatusCode> {
    let (executor, end) = request.split(true);
    app.coordinator.finish_original(id, &executor, end).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Report that a job failed
#[utoipa::path(put, path = "/jobs/{id}/fail", tag = "original executor", params(("id" = JobId, Path)),
    request_body = EndRequest,
    responses(
        (status = 204, description = "The result is taken."),
        (status = 404, description = "There is no such job.", body = ApiError),
    ))]
pub(crate) async fn fail(
    State(app): State<Shared>,
    _caller: May<Execute>,
    Segment(id): Segment<JobId>,
    LargeJson(request): LargeJson<EndRequest>,
) -> Answer<StatusCode> {
    let (executor, end) = request.split(false);
    app.coordinator.finish_original(id, &executor, end).await?;
    Ok(StatusCode::NO_CONTENT)
}
