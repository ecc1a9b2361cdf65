//! The side of the API that people and their programs use for runs.

use std::time::Duration;

use async_trait::async_trait;
use executr_spec::RunId;
use executr_spec::workflow::RunPlan;
use futures_util::stream::BoxStream;

use crate::client::Client;
use crate::error::ApiError;
use crate::run::{
    ArtifactQuery, ArtifactView, RerunScope, RunCancel, RunEvent, RunEventFollow, RunJobView, RunQuery, RunSubmission,
    RunView,
};

/// Events of a run as they happen; ends after the run's last, or the first error.
pub type RunEventStream = BoxStream<'static, Result<RunEvent, ApiError>>;

/// What users can ask of a coordinator about runs, near or far.
#[async_trait]
pub trait RunClient: Client {
    /// Submits a run. When this returns it is on disk with all its jobs. The trees that it names must have been uploaded.
    ///
    /// # Errors
    /// `BadRequest` naming the field, or how many blobs are missing; then nothing was recorded.
    async fn submit_run(&self, run: RunSubmission) -> Result<RunView, ApiError>;

    /// One run.
    ///
    /// # Errors
    /// `NotFound`.
    async fn run(&self, id: RunId) -> Result<RunView, ApiError>;

    /// Runs, newest first.
    ///
    /// # Errors
    /// `BadRequest` for a limit over 1000.
    async fn runs(&self, query: RunQuery) -> Result<Vec<RunView>, ApiError>;

    /// Up to `limit` jobs of a run (1000, and at most so many, when absent) from place `from` on, in the order of the plan.
    /// Fewer when they are large: go on after the last until none come.
    ///
    /// # Errors
    /// `NotFound`, `BadRequest` for a limit over 1000.
    async fn run_jobs(&self, id: RunId, from: u32, limit: Option<u32>) -> Result<Vec<RunJobView>, ApiError>;

    /// A run's events, from any number on, live if asked.
    ///
    /// # Errors
    /// `NotFound`.
    async fn run_events(&self, id: RunId, follow: RunEventFollow) -> Result<RunEventStream, ApiError>;

    /// Waits until the run is final, at most `timeout`; returns how it stands then.
    ///
    /// # Errors
    /// `NotFound`.
    async fn wait_run(&self, id: RunId, timeout: Duration) -> Result<RunView, ApiError>;

    /// Asks a run to stop. In order it may take its time, because what is meant for that goes on (`always()`, `cancelled()`);
    /// an ended run stays as it is.
    ///
    /// # Errors
    /// `NotFound`.
    async fn cancel_run(&self, id: RunId, how: RunCancel) -> Result<RunView, ApiError>;

    /// Submits an earlier run's plan again, all of it or what didn't succeed.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when only what failed is to be repeated and the run isn't over; `BadRequest` when blobs of it
    /// are gone.
    async fn rerun(&self, id: RunId, scope: RerunScope) -> Result<RunView, ApiError>;

    /// The plan of a run as it was submitted.
    ///
    /// # Errors
    /// `NotFound`.
    async fn run_plan(&self, id: RunId) -> Result<RunPlan, ApiError>;

    /// Artifacts, those of the newest run first, then in the order of the plan.
    ///
    /// # Errors
    /// `NotFound` when a run is named that isn't there, and no artifacts of it are either.
    async fn artifacts(&self, query: ArtifactQuery) -> Result<Vec<ArtifactView>, ApiError>;
}
