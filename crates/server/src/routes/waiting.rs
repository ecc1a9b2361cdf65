//! Calls that wait for something to happen to a job.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use executr_api::{ApiError, AttemptStatus, CancelWait, Client, JobView};
use executr_spec::{JobId, Span};
use serde::Deserialize;
use utoipa::IntoParams;

use super::json;
use crate::access::{May, Read, Submit};
use crate::app::Shared;
use crate::failure::Answer;
use crate::input::{Query, Segment};

/// The wait when none is asked for.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);

/// How long to wait.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WaitQuery {
    /// At most so long: `30s` when absent, a minute at most.
    #[param(example = "30s")]
    timeout: Option<Span>,
}

/// Wait for a job's end
///
/// Answers when the job is final or the time is over, with the job as it stands then.
#[utoipa::path(get, path = "/jobs/{id}/wait", tag = "jobs", params(("id" = JobId, Path), WaitQuery),
    responses(
        (status = 200, description = "The job; look at its status.", body = JobView),
        (status = 404, description = "There is no such job.", body = ApiError),
    ))]
pub(crate) async fn wait(
    State(app): State<Shared>,
    caller: May<Read>,
    Segment(id): Segment<JobId>,
    Query(query): Query<WaitQuery>,
) -> Answer<Response> {
    let timeout = query.timeout.map_or(DEFAULT_WAIT, |span| span.0).min(app.limits.wait_time);
    let client = app.coordinator.client(caller.tenant);
    let job = tokio::select! {
        job = client.wait(id, timeout) => job?,
        () = app.stopping.cancelled() => client.job(id).await?,
    };
    Ok(json(200, &job))
}

/// Whether to wait for the end.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct CancelQuery {
    /// Wait until the job's processes are gone, at most so long; a minute at most. When absent the answer comes at once.
    #[param(example = "10s")]
    wait: Option<Span>,
}

/// Cancel a job, running or not
///
/// 200 says that the job is final and no process of it is left. A job that had ended before stays as it was. When its
/// worker was lost before it could say that, the job is final but the answer is 202.
#[utoipa::path(post, path = "/jobs/{id}/cancel", tag = "jobs", params(("id" = JobId, Path), CancelQuery),
    responses(
        (status = 200, description = "The job is final.", body = JobView),
        (status = 202, description = "The job was asked to stop; it has not ended yet, or not for certain.", body = JobView),
        (status = 404, description = "There is no such job.", body = ApiError),
    ))]
pub(crate) async fn cancel(
    State(app): State<Shared>,
    caller: May<Submit>,
    Segment(id): Segment<JobId>,
    Query(query): Query<CancelQuery>,
) -> Answer<Response> {
    let wait = match query.wait {
        None => CancelWait::No,
        Some(Span(wait)) => CancelWait::AtMost(wait.min(app.limits.wait_time)),
    };
    let client = app.coordinator.client(caller.tenant);
    let job = tokio::select! {
        job = client.cancel(id, wait) => job?,
        // It was asked for already; what is left is the waiting.
        () = app.stopping.cancelled() => client.cancel(id, CancelWait::No).await?,
    };
    Ok(json(if is_over(&job) { 200 } else { 202 }, &job))
}

/// Whether the job is final, and its last worker, if it had one, has said that its processes are gone.
fn is_over(job: &JobView) -> bool {
    let last = job.attempts.as_ref().and_then(|attempts| attempts.last());
    job.state.is_final() && last.is_none_or(|last| last.status != AttemptStatus::Lost)
}
