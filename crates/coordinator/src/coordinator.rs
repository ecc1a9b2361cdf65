//! The coordinator as others hold it.

use std::sync::Arc;

use executr_api::{ApiError, ErrorCode, Fence, TokenView};
use executr_spec::{Digest, JobId, Tenant};
use executr_store::{Store, StoreCounters};

use crate::client::TenantClient;
use crate::observer::Observer;
use crate::options::Options;

/// The coordinator. Clones are the same one; the last that goes ends its background work.
#[derive(Clone)]
pub struct Coordinator {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) options: Arc<Options>,
}

/// What is true just now, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Jobs that wait: ready, scheduled or blocked.
    pub jobs_in_queue: u64,
    /// Workers heard of lately.
    pub active_executors: u64,
    /// Bytes in the binary caches of the workers connected here.
    pub cache_bytes: u64,
    /// The store's totals.
    pub store: StoreCounters,
}

impl Coordinator {
    /// Begins to serve `store`.
    ///
    /// # Errors
    /// `Unavailable` when the store doesn't answer.
    pub async fn start(
        store: Arc<dyn Store>,
        options: Options,
        _observer: Arc<dyn Observer>,
    ) -> Result<Self, ApiError> {
        Ok(Self { store, options: Arc::new(options) })
    }

    /// What its operator set.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The calls of users, on behalf of `tenant`.
    #[must_use]
    pub fn client(&self, tenant: Tenant) -> TenantClient {
        TenantClient { coordinator: self.clone(), tenant }
    }

    /// The access token with this secret; `None` when it is unknown, revoked or expired. A revoked token is refused here
    /// at once and by other coordinators of the same database within 5 s.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn authenticate(&self, _secret: &str) -> Result<Option<TokenView>, ApiError> {
        Err(missing())
    }

    /// Whether any access token exists, valid or expired.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn has_tokens(&self) -> Result<bool, ApiError> {
        Err(missing())
    }

    /// The lease that a job's own token (`executr-job-…`) stands for, while it is held.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn job_token(&self, _token: &str) -> Result<Option<Fence>, ApiError> {
        Err(missing())
    }

    /// The lease, when `token` is the own token of this job.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn job_token_opens(&self, job: JobId, token: &str) -> Result<Option<Fence>, ApiError> {
        Ok(self.job_token(token).await?.filter(|fence| fence.job == job))
    }

    /// The size of a blob; asking keeps it for another day.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn blob_size(&self, _digest: Digest) -> Result<Option<u64>, ApiError> {
        Err(missing())
    }

    /// Whether it can do its work: the store answers and it is not stopping.
    ///
    /// # Errors
    /// `Unavailable`, saying why not.
    pub async fn health(&self) -> Result<(), ApiError> {
        Err(missing())
    }

    /// What is true just now, for metrics.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn gauges(&self) -> Result<Gauges, ApiError> {
        Err(missing())
    }

    /// Stops: held exchanges are answered with nothing, later ones refused, what is only in memory is written.
    pub async fn shutdown(&self) {}
}

pub(crate) fn missing() -> ApiError {
    ApiError::new(ErrorCode::Unavailable, "the coordinator can't do this yet")
}
