//! What workers call.

use axum::extract::State;
use axum::response::Response;
use executr_api::output::{OutputChunk, Records};
use executr_api::{ApiError, ErrorCode, Fence, Orders, Report, WorkerApi};
use executr_spec::{JobId, LeaseId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{RawBytes, json};
use crate::access::{Execute, May, MayAppend};
use crate::app::Shared;
use crate::body::{LargeJson, OutputBytes};
use crate::failure::{Answer, Failure};
use crate::input::{Position, Query, Segment};

/// Report, renew and ask for work
///
/// Held open until there is something to say, at most for the report's `wait_ms`; an open exchange counts as a beat.
#[utoipa::path(post, path = "/worker/exchange", tag = "worker", request_body = Report,
    responses(
        (status = 200, description = "What to do.", body = Orders),
        (status = 426, description = "Server and worker are too far apart in version.", body = ApiError),
    ))]
pub(crate) async fn exchange(
    State(app): State<Shared>,
    _caller: May<Execute>,
    LargeJson(mut report): LargeJson<Report>,
) -> Answer<Response> {
    let longest = u64::try_from(app.limits.wait_time.as_millis()).unwrap_or(u64::MAX);
    report.wait_ms = report.wait_ms.min(longest);
    let orders = app.coordinator.exchange(report).await?;
    Ok(json(200, &orders))
}

/// Under which lease, and where.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AppendQuery {
    /// The attempt.
    attempt: u32,
    /// The lease.
    lease: LeaseId,
    /// The position of the first record.
    #[param(value_type = u64, maximum = 9_223_372_036_854_775_807_i64)]
    offset: Position,
}

/// Where the output stands.
#[derive(Serialize, ToSchema)]
pub(crate) struct Appended {
    /// The position after the last record.
    end: u64,
}

/// Append output of a running attempt
///
/// The body is encoded records. Positions that are there already are passed over.
#[utoipa::path(post, path = "/worker/jobs/{id}/output", tag = "worker", params(("id" = JobId, Path), AppendQuery),
    request_body(content = inline(Option<RawBytes>), content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "Where the output stands.", body = Appended),
        (status = 404, description = "There is no such job.", body = ApiError),
        (status = 409, description = "The lease is lost, or records before the offset are missing.", body = ApiError),
    ))]
pub(crate) async fn append_output(
    State(app): State<Shared>,
    right: MayAppend,
    Segment(job): Segment<JobId>,
    Query(query): Query<AppendQuery>,
    OutputBytes(bytes): OutputBytes,
) -> Answer<Response> {
    let fence = Fence { job, attempt: query.attempt, lease: query.lease };
    right.covers(&fence)?;
    let records = Records::parse(bytes).map_err(|error| Failure::new(ErrorCode::BadRequest, error.to_string()))?;
    let chunk = OutputChunk { offset: query.offset.0, records };
    let end = app.coordinator.append_output(&fence, "", chunk).await?;
    Ok(json(200, &Appended { end }))
}
