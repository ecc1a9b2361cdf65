//! Runs of workflows.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use executr_api::{
    ApiError, ArtifactQuery, ArtifactView, ErrorCode, RerunScope, RunCancel, RunClient, RunJobView, RunQuery, RunState,
    RunSubmission, RunView,
};
use executr_spec::workflow::RunPlan;
use executr_spec::{RunId, Span};
use serde::Deserialize;
use utoipa::IntoParams;

use super::json;
use crate::access::{May, Read, Submit};
use crate::app::Shared;
use crate::body::{Bulk, parse};
use crate::failure::{Answer, Failure};
use crate::input::{Query, Segment};

/// The wait when none is asked for.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);

/// Submit a run
///
/// The body is a plan, which clients make of a workflow's file. When this answers 201 the run is on disk with all its
/// jobs; else nothing of it is. The trees that it names have to be uploaded before.
#[utoipa::path(post, path = "/workflows", tag = "runs", request_body = RunSubmission,
    responses((status = 201, description = "The run is recorded.", body = RunView)))]
pub(crate) async fn submit(State(app): State<Shared>, caller: May<Submit>, bulk: Bulk) -> Answer<Response> {
    let Bulk { bytes, permit } = bulk;
    // A large plan takes a while to be read, and others want to be served meanwhile.
    let parsed = tokio::task::spawn_blocking(move || parse::<RunSubmission>(&bytes)).await;
    let run =
        parsed.map_err(|_| Failure::new(ErrorCode::Internal, "the server failed on this plan; see its log"))??;
    let run = app.coordinator.client(caller.tenant).submit_run(run).await?;
    drop(permit);
    Ok(json(201, &run))
}

/// Which runs to list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// Only those in this state.
    state: Option<RunState>,
    /// Only those of this workflow.
    name: Option<String>,
    /// At most so many.
    #[param(minimum = 0, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// Only those submitted before this one.
    before: Option<RunId>,
}

/// List runs
///
/// The newest come first.
#[utoipa::path(get, path = "/runs", tag = "runs", params(ListQuery),
    responses((status = 200, description = "The runs.", body = Vec<RunView>)))]
pub(crate) async fn list(
    State(app): State<Shared>,
    caller: May<Read>,
    Query(query): Query<ListQuery>,
) -> Answer<Response> {
    let ListQuery { state, name, limit, before } = query;
    let query = RunQuery { state, name, limit, before };
    Ok(json(200, &app.coordinator.client(caller.tenant).runs(query).await?))
}

/// Show a run
#[utoipa::path(get, path = "/runs/{id}", tag = "runs", params(("id" = RunId, Path)),
    responses(
        (status = 200, description = "The run.", body = RunView),
        (status = 404, description = "There is no such run.", body = ApiError),
    ))]
pub(crate) async fn get(State(app): State<Shared>, caller: May<Read>, Segment(id): Segment<RunId>) -> Answer<Response> {
    Ok(json(200, &app.coordinator.client(caller.tenant).run(id).await?))
}

/// Which jobs of a run to list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct JobsQuery {
    /// From this place in the plan on.
    #[serde(default)]
    #[param(required = false)]
    from: u32,
    /// At most so many.
    #[param(minimum = 0, maximum = 1000, default = 1000)]
    limit: Option<u32>,
}

/// List a run's jobs
///
/// In the order of the plan. There may be fewer than asked for when they are large: go on after the last until none come.
#[utoipa::path(get, path = "/runs/{id}/jobs", tag = "runs", params(("id" = RunId, Path), JobsQuery),
    responses(
        (status = 200, description = "The jobs.", body = Vec<RunJobView>),
        (status = 404, description = "There is no such run.", body = ApiError),
    ))]
pub(crate) async fn jobs(
    State(app): State<Shared>,
    caller: May<Read>,
    Segment(id): Segment<RunId>,
    Query(query): Query<JobsQuery>,
) -> Answer<Response> {
    Ok(json(200, &app.coordinator.client(caller.tenant).run_jobs(id, query.from, query.limit).await?))
}

/// Show a run's plan
///
/// As it was submitted.
#[utoipa::path(get, path = "/runs/{id}/plan", tag = "runs", params(("id" = RunId, Path)),
    responses(
        (status = 200, description = "The plan.", body = RunPlan),
        (status = 404, description = "There is no such run.", body = ApiError),
    ))]
pub(crate) async fn plan(
    State(app): State<Shared>,
    caller: May<Read>,
    Segment(id): Segment<RunId>,
) -> Answer<Response> {
    Ok(json(200, &app.coordinator.client(caller.tenant).run_plan(id).await?))
}

/// How many artifacts to list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ArtifactsQuery {
    /// At most so many.
    #[param(minimum = 0, maximum = 10_000, default = 1000)]
    limit: Option<u32>,
}

/// List a run's artifacts
///
/// In the order of the plan. They may outlive their run.
#[utoipa::path(get, path = "/runs/{id}/artifacts", tag = "runs", params(("id" = RunId, Path), ArtifactsQuery),
    responses(
        (status = 200, description = "The artifacts.", body = Vec<ArtifactView>),
        (status = 404, description = "There is no such run.", body = ApiError),
    ))]
pub(crate) async fn run_artifacts(
    State(app): State<Shared>,
    caller: May<Read>,
    Segment(id): Segment<RunId>,
    Query(query): Query<ArtifactsQuery>,
) -> Answer<Response> {
    let query = ArtifactQuery { run: Some(id), limit: query.limit };
    Ok(json(200, &app.coordinator.client(caller.tenant).artifacts(query).await?))
}

/// List artifacts
///
/// Those of the newest run come first.
#[utoipa::path(get, path = "/artifacts", tag = "runs", params(ArtifactsQuery),
    responses((status = 200, description = "The artifacts.", body = Vec<ArtifactView>)))]
pub(crate) async fn artifacts(
    State(app): State<Shared>,
    caller: May<Read>,
    Query(query): Query<ArtifactsQuery>,
) -> Answer<Response> {
    let query = ArtifactQuery { run: None, limit: query.limit };
    Ok(json(200, &app.coordinator.client(caller.tenant).artifacts(query).await?))
}

/// How long to wait.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WaitQuery {
    /// At most so long: `30s` when absent, a minute at most.
    #[param(example = "30s")]
    timeout: Option<Span>,
}

/// Wait for a run's end
///
/// Answers when the run is final or the time is over, with the run as it stands then.
#[utoipa::path(get, path = "/runs/{id}/wait", tag = "runs", params(("id" = RunId, Path), WaitQuery),
    responses(
        (status = 200, description = "The run; look at its state.", body = RunView),
        (status = 404, description = "There is no such run.", body = ApiError),
    ))]
pub(crate) async fn wait(
    State(app): State<Shared>,
    caller: May<Read>,
    Segment(id): Segment<RunId>,
    Query(query): Query<WaitQuery>,
) -> Answer<Response> {
    let timeout = query.timeout.map_or(DEFAULT_WAIT, |span| span.0).min(app.limits.wait_time);
    let client = app.coordinator.client(caller.tenant);
    let run = tokio::select! {
        run = client.wait_run(id, timeout) => run?,
        () = app.stopping.cancelled() => client.run(id).await?,
    };
    Ok(json(200, &run))
}

/// Whether to wait for what is meant for a cancellation.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct CancelRunQuery {
    /// Start nothing more and kill what runs, also in a run that was cancelled without this before.
    #[serde(default)]
    #[param(required = false)]
    now: bool,
}

/// Cancel a run
///
/// Jobs that are meant for it (`always()`, `cancelled()`) still run, so its end may take a while, unless it is asked for
/// now. A run that had ended stays as it was.
#[utoipa::path(post, path = "/runs/{id}/cancel", tag = "runs", params(("id" = RunId, Path), CancelRunQuery),
    responses(
        (status = 200, description = "The run is final.", body = RunView),
        (status = 202, description = "The run was asked to stop and has not ended yet.", body = RunView),
        (status = 404, description = "There is no such run.", body = ApiError),
    ))]
pub(crate) async fn cancel(
    State(app): State<Shared>,
    caller: May<Submit>,
    Segment(id): Segment<RunId>,
    Query(query): Query<CancelRunQuery>,
) -> Answer<Response> {
    let how = if query.now { RunCancel::AtOnce } else { RunCancel::InOrder };
    let run = app.coordinator.client(caller.tenant).cancel_run(id, how).await?;
    Ok(json(if run.state.is_final() { 200 } else { 202 }, &run))
}

/// Which jobs to repeat.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct RerunQuery {
    /// All jobs, or those that did not succeed and what comes after them.
    #[serde(default)]
    #[param(required = false, inline)]
    scope: RerunScope,
}

/// Repeat a run
///
/// A new run with the same plan. With `scope=failed` what succeeded is not done again: its outputs and artifacts are taken
/// over.
#[utoipa::path(post, path = "/runs/{id}/rerun", tag = "runs", params(("id" = RunId, Path), RerunQuery),
    responses(
        (status = 201, description = "The new run.", body = RunView),
        (status = 404, description = "There is no such run.", body = ApiError),
        (status = 409, description = "Only what failed was to be repeated, and the run isn't over.", body = ApiError),
    ))]
pub(crate) async fn rerun(
    State(app): State<Shared>,
    caller: May<Submit>,
    Segment(id): Segment<RunId>,
    Query(query): Query<RerunQuery>,
) -> Answer<Response> {
    let run = app.coordinator.client(caller.tenant).rerun(id, query.scope).await?;
    Ok(json(201, &run))
}
