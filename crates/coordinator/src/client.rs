//! The calls of users.

use std::time::Duration;

use async_trait::async_trait;
use executr_api::{
    ApiError, BulkCancelAnswer, ByteStream, CancelWait, Client, CreateToken, JobQuery, JobView, NewToken, OutputFollow,
    OutputStream, StatsView, Submission, SubmittedJob, TokenView, WorkerView,
};
use executr_spec::{Digest, JobId, Tenant, TokenId};

use crate::coordinator::{Coordinator, missing};

/// A [`Client`] in the coordinator's own process, acting for one tenant.
#[derive(Clone)]
pub struct TenantClient {
    pub(crate) coordinator: Coordinator,
    pub(crate) tenant: Tenant,
}

#[async_trait]
impl Client for TenantClient {
    async fn submit(&self, _job: Submission) -> Result<JobView, ApiError> {
        Err(missing())
    }
    async fn submit_bulk(&self, _jobs: Vec<Submission>) -> Result<Vec<SubmittedJob>, ApiError> {
        Err(missing())
    }
    async fn job(&self, _id: JobId) -> Result<JobView, ApiError> {
        Err(missing())
    }
    async fn jobs(&self, _query: JobQuery) -> Result<Vec<JobView>, ApiError> {
        Err(missing())
    }
    async fn wait(&self, _id: JobId, _timeout: Duration) -> Result<JobView, ApiError> {
        Err(missing())
    }
    async fn cancel(&self, _id: JobId, _wait: CancelWait) -> Result<JobView, ApiError> {
        Err(missing())
    }
    async fn cancel_pending(&self, _id: JobId) -> Result<(), ApiError> {
        Err(missing())
    }
    async fn cancel_bulk(&self, _ids: Vec<JobId>) -> Result<BulkCancelAnswer, ApiError> {
        Err(missing())
    }
    async fn output(&self, _id: JobId, _follow: OutputFollow) -> Result<OutputStream, ApiError> {
        Err(missing())
    }
    async fn stats(&self) -> Result<StatsView, ApiError> {
        Err(missing())
    }
    async fn workers(&self) -> Result<Vec<WorkerView>, ApiError> {
        Err(missing())
    }
    async fn has_blob(&self, digest: Digest) -> Result<bool, ApiError> {
        Ok(self.coordinator.blob_size(digest).await?.is_some())
    }
    async fn put_blob(&self, _digest: Digest, _bytes: ByteStream) -> Result<(), ApiError> {
        Err(missing())
    }
    async fn create_token(&self, _token: CreateToken) -> Result<NewToken, ApiError> {
        Err(missing())
    }
    async fn tokens(&self) -> Result<Vec<TokenView>, ApiError> {
        Err(missing())
    }
    async fn revoke_token(&self, _id: TokenId) -> Result<(), ApiError> {
        Err(missing())
    }
}

impl TenantClient {
    /// On whose behalf it acts.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }
}
