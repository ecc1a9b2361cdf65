//! The calls of users about runs.

use std::time::Duration;

use async_trait::async_trait;
use executr_api::{
    ApiError, ArtifactQuery, ArtifactView, RerunScope, RunCancel, RunClient, RunEventFollow, RunEventStream,
    RunJobView, RunQuery, RunSubmission, RunView,
};
use executr_spec::RunId;
use executr_spec::workflow::RunPlan;

use crate::client::TenantClient;
use crate::runs;

#[async_trait]
impl RunClient for TenantClient {
    async fn submit_run(&self, run: RunSubmission) -> Result<RunView, ApiError> {
        self.coordinator.core().submit_run(&self.tenant, run).await
    }

    async fn run(&self, id: RunId) -> Result<RunView, ApiError> {
        self.coordinator.core().run(id).await
    }

    async fn runs(&self, query: RunQuery) -> Result<Vec<RunView>, ApiError> {
        self.coordinator.core().runs(query).await
    }

    async fn run_jobs(&self, id: RunId, from: u32, limit: Option<u32>) -> Result<Vec<RunJobView>, ApiError> {
        self.coordinator.core().run_jobs(id, from, limit).await
    }

    async fn run_events(&self, id: RunId, follow: RunEventFollow) -> Result<RunEventStream, ApiError> {
        runs::follow(self.coordinator.core(), id, follow).await
    }

    async fn wait_run(&self, id: RunId, timeout: Duration) -> Result<RunView, ApiError> {
        self.coordinator.core().wait_run(id, timeout).await
    }

    async fn cancel_run(&self, id: RunId, how: RunCancel) -> Result<RunView, ApiError> {
        self.coordinator.core().cancel_run(id, how).await
    }

    async fn rerun(&self, id: RunId, scope: RerunScope) -> Result<RunView, ApiError> {
        self.coordinator.core().rerun(&self.tenant, id, scope).await
    }

    async fn run_plan(&self, id: RunId) -> Result<RunPlan, ApiError> {
        self.coordinator.core().run_plan(id).await
    }

    async fn artifacts(&self, query: ArtifactQuery) -> Result<Vec<ArtifactView>, ApiError> {
        self.coordinator.core().artifacts(query).await
    }
}
