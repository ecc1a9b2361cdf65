//! Single jobs.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use executr_api::{ApiError, Client, JobQuery, JobStatus, JobView, Submission};
use executr_spec::{JobId, JobType, Priority, QueueName};
use serde::Deserialize;
use utoipa::IntoParams;

use super::json;
use crate::access::{May, Read, Submit};
use crate::app::Shared;
use crate::body::Json;
use crate::failure::Answer;
use crate::input::{Position, Query, Segment};

/// Submit a job
///
/// When this answers 201 the job is on disk. A submission with an `idempotency_key` that was used before is answered
/// with the earlier job.
#[utoipa::path(post, path = "/jobs", tag = "jobs", request_body = Submission,
    responses((status = 201, description = "The job is recorded.", body = JobView)))]
pub(crate) async fn submit(
    State(app): State<Shared>,
    caller: May<Submit>,
    Json(job): Json<Submission>,
) -> Answer<Response> {
    let job = app.coordinator.client(caller.tenant).submit(job).await?;
    Ok(json(201, &job))
}

/// Which jobs to list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// Only those with this status.
    status: Option<JobStatus>,
    /// Only those of this type.
    #[serde(rename = "type")]
    job_type: Option<JobType>,
    /// Only those of this priority.
    priority: Option<Priority>,
    /// Only those of this queue.
    queue: Option<QueueName>,
    /// At most so many.
    #[param(minimum = 0, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// Pass over so many. For many pages `before` is cheaper.
    #[serde(default)]
    #[param(required = false, value_type = u64, maximum = 9_223_372_036_854_775_807_i64)]
    offset: Position,
    /// Only those submitted before this one.
    before: Option<JobId>,
}

/// List jobs
///
/// The newest come first. `stdout`, `stderr` and `attempts` are not listed.
#[utoipa::path(get, path = "/jobs", tag = "jobs", params(ListQuery),
    responses((status = 200, description = "The jobs.", body = Vec<JobView>)))]
pub(crate) async fn list(
    State(app): State<Shared>,
    caller: May<Read>,
    Query(query): Query<ListQuery>,
) -> Answer<Response> {
    let query = JobQuery {
        status: query.status,
        job_type: query.job_type,
        priority: query.priority,
        queue: query.queue,
        limit: query.limit,
        offset: query.offset.0,
        before: query.before,
    };
    let jobs = app.coordinator.client(caller.tenant).jobs(query).await?;
    Ok(json(200, &jobs))
}

/// Show a job
///
/// With its attempts, and its output shortened to `--max-output-size`.
#[utoipa::path(get, path = "/jobs/{id}", tag = "jobs", params(("id" = JobId, Path)),
    responses(
        (status = 200, description = "The job.", body = JobView),
        (status = 404, description = "There is no such job.", body = ApiError),
    ))]
pub(crate) async fn get(State(app): State<Shared>, caller: May<Read>, Segment(id): Segment<JobId>) -> Answer<Response> {
    let job = app.coordinator.client(caller.tenant).job(id).await?;
    Ok(json(200, &job))
}

/// Cancel a pending job
#[utoipa::path(delete, path = "/jobs/{id}", tag = "jobs", params(("id" = JobId, Path)),
    responses(
        (status = 204, description = "The job is cancelled."),
        (status = 404, description = "There is no such job.", body = ApiError),
    ))]
pub(crate) async fn cancel_pending(
    State(app): State<Shared>,
    caller: May<Submit>,
    Segment(id): Segment<JobId>,
) -> Answer<StatusCode> {
    app.coordinator.client(caller.tenant).cancel_pending(id).await?;
    Ok(StatusCode::NO_CONTENT)
}
