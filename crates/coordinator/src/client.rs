//! The calls of users.

use std::time::Duration;

use async_trait::async_trait;
use executr_api::console::ConsoleLine;
use executr_api::{
    ApiError, BulkCancelAnswer, ByteStream, CancelWait, Client, CreateToken, JobQuery, JobView, NewToken, OutputFollow,
    OutputStream, StatsView, Submission, SubmittedJob, TokenView, WorkerView,
};
use executr_spec::{Digest, JobId, Tenant, TokenId};

use crate::coordinator::Coordinator;
use crate::output;

/// A [`Client`] in the coordinator's own process, acting for one tenant. Roles are not looked at here: whoever calls in
/// the same process is trusted, and the server has checked.
#[derive(Clone)]
pub struct TenantClient {
    pub(crate) coordinator: Coordinator,
    pub(crate) tenant: Tenant,
}

impl TenantClient {
    /// On whose behalf it acts.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }
}

#[async_trait]
impl Client for TenantClient {
    async fn submit(&self, job: Submission) -> Result<JobView, ApiError> {
        self.coordinator.core().submit(&self.tenant, job).await
    }

    async fn submit_bulk(&self, jobs: Vec<Submission>) -> Result<Vec<SubmittedJob>, ApiError> {
        self.coordinator.core().submit_bulk(&self.tenant, jobs).await
    }

    async fn job(&self, id: JobId) -> Result<JobView, ApiError> {
        self.coordinator.core().job(id).await
    }

    async fn jobs(&self, query: JobQuery) -> Result<Vec<JobView>, ApiError> {
        self.coordinator.core().jobs(query).await
    }

    async fn wait(&self, id: JobId, timeout: Duration) -> Result<JobView, ApiError> {
        self.coordinator.core().wait(id, timeout).await
    }

    async fn cancel(&self, id: JobId, wait: CancelWait) -> Result<JobView, ApiError> {
        self.coordinator.core().cancel(id, wait).await
    }

    async fn cancel_pending(&self, id: JobId) -> Result<(), ApiError> {
        self.coordinator.core().cancel_pending(id).await
    }

    async fn cancel_bulk(&self, ids: Vec<JobId>) -> Result<BulkCancelAnswer, ApiError> {
        self.coordinator.core().cancel_bulk(ids).await
    }

    async fn output(&self, id: JobId, follow: OutputFollow) -> Result<OutputStream, ApiError> {
        output::follow(self.coordinator.core(), id, follow).await
    }

    async fn console(&self, id: JobId) -> Result<ConsoleLine, ApiError> {
        self.coordinator.core().console(id, format!("tenant {}", self.tenant)).await
    }

    async fn stats(&self) -> Result<StatsView, ApiError> {
        self.coordinator.core().stats().await
    }

    async fn workers(&self) -> Result<Vec<WorkerView>, ApiError> {
        self.coordinator.core().workers().await
    }

    async fn has_blob(&self, digest: Digest) -> Result<bool, ApiError> {
        Ok(self.coordinator.blob_size(digest).await?.is_some())
    }

    async fn missing_blobs(&self, digests: Vec<Digest>) -> Result<Vec<Digest>, ApiError> {
        self.coordinator.core().missing_blobs(digests).await
    }

    async fn read_blob(&self, digest: Digest, offset: u64) -> Result<ByteStream, ApiError> {
        self.coordinator.core().blob(digest, offset).await
    }

    async fn put_blob(&self, digest: Digest, bytes: ByteStream) -> Result<(), ApiError> {
        self.coordinator.core().put_blob(digest, bytes).await
    }

    async fn create_token(&self, token: CreateToken) -> Result<NewToken, ApiError> {
        self.coordinator.core().create_token(token).await
    }

    async fn tokens(&self) -> Result<Vec<TokenView>, ApiError> {
        self.coordinator.core().list_tokens().await
    }

    async fn revoke_token(&self, id: TokenId) -> Result<(), ApiError> {
        self.coordinator.core().revoke_token(id).await
    }
}
