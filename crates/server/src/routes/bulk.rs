//! Many jobs in one request.

use axum::extract::State;
use axum::response::Response;
use executr_api::{BulkCancelAnswer, Client, Submission, SubmittedJob};
use executr_spec::JobId;
use serde::Deserialize;
use utoipa::ToSchema;

use super::json;
use crate::access::{May, Submit};
use crate::app::Shared;
use crate::body::{Bulk, parse, parse_array};
use crate::failure::Answer;

/// Submit many jobs
///
/// All are recorded or none: an error names the first that is wrong (`context.index`).
#[utoipa::path(post, path = "/jobs/bulk", tag = "jobs", request_body = Vec<Submission>,
    responses((status = 201, description = "All jobs are recorded.", body = Vec<SubmittedJob>)))]
pub(crate) async fn submit(State(app): State<Shared>, caller: May<Submit>, bulk: Bulk) -> Answer<Response> {
    let Bulk { bytes, permit } = bulk;
    let jobs: Vec<Submission> = parse_array(&bytes, app.coordinator.options().max_bulk)?;
    drop(bytes);
    let submitted = app.coordinator.client(caller.tenant).submit_bulk(jobs).await?;
    drop(permit);
    Ok(json(201, &submitted))
}

/// Which jobs to cancel.
#[derive(Deserialize, ToSchema)]
pub(crate) struct BulkCancel {
    /// The jobs.
    job_ids: Vec<JobId>,
}

/// Cancel many pending jobs
#[utoipa::path(post, path = "/jobs/bulk/cancel", tag = "jobs", request_body = BulkCancel,
    responses((status = 200, description = "What was done.", body = BulkCancelAnswer)))]
pub(crate) async fn cancel(State(app): State<Shared>, caller: May<Submit>, bulk: Bulk) -> Answer<Response> {
    let BulkCancel { job_ids } = parse(&bulk.bytes)?;
    let answer = app.coordinator.client(caller.tenant).cancel_bulk(job_ids).await?;
    Ok(json(200, &answer))
}
