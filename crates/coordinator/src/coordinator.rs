//! The coordinator as others hold it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use executr_api::console::ConsoleLine;
use executr_api::{ApiError, ErrorCode, Fence, JobStatus, RunState, StatsView, TokenView};
use executr_spec::{Digest, JobId, Tenant};
use executr_store::{Store, StoreCounters};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::client::TenantClient;
use crate::core::Core;
use crate::observer::Observer;
use crate::options::Options;
use crate::{fleet, job_token, neighbours, refusal, retention, runs, sweep};

/// The coordinator. Clones are the same one; the last that goes ends its background work.
#[derive(Clone)]
pub struct Coordinator {
    core: Arc<Core>,
    _background: Arc<Background>,
}

/// Tasks that end with it.
struct Background(Vec<JoinHandle<()>>);

impl Drop for Background {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// Whoever asks how it is wants to know soon.
const HEALTH: Duration = Duration::from_secs(2);

/// What is true just now, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Jobs that wait: ready, scheduled or blocked.
    pub jobs_in_queue: u64,
    /// Runs that are kept, by their states; none with 0.
    pub runs: BTreeMap<RunState, u64>,
    /// Workers heard of lately.
    pub active_executors: u64,
    /// Bytes in the binary caches of the workers connected here.
    pub cache_bytes: u64,
    /// The store's totals.
    pub store: StoreCounters,
}

impl Coordinator {
    /// Begins to serve `store`. Needs a running Tokio runtime.
    ///
    /// # Errors
    /// `Unavailable` when the store doesn't answer.
    pub async fn start(store: Arc<dyn Store>, options: Options, observer: Arc<dyn Observer>) -> Result<Self, ApiError> {
        let signals = store.subscribe();
        let core = Arc::new(Core::new(store, options, observer).await.map_err(refusal::store)?);
        let background = Background(vec![
            tokio::spawn(sweep::sweep(Arc::clone(&core))),
            tokio::spawn(neighbours::listen(Arc::clone(&core), signals)),
            tokio::spawn(neighbours::look_now_and_then(Arc::clone(&core))),
            tokio::spawn(fleet::keep(Arc::clone(&core))),
            tokio::spawn(retention::clean(Arc::clone(&core))),
            tokio::spawn(runs::ask_now_and_then(Arc::clone(&core))),
        ]);
        Ok(Self { core, _background: Arc::new(background) })
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// What its operator set.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.core.options
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
    pub async fn authenticate(&self, secret: &str) -> Result<Option<TokenView>, ApiError> {
        self.core.authenticate(secret).await
    }

    /// Whether any access token exists, valid or expired. What another coordinator made is seen within 5 s.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn has_tokens(&self) -> Result<bool, ApiError> {
        self.core.has_tokens().await
    }

    /// The lease that a job's own token (`executr-job-…`) stands for, while it is held; at most 5 s longer when it ends
    /// at another coordinator.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn job_token(&self, token: &str) -> Result<Option<Fence>, ApiError> {
        self.core.job_token(token).await
    }

    /// Whether `token` reads like a job's own, held or not.
    #[must_use]
    pub fn is_job_token(token: &str) -> bool {
        job_token::read(token).is_some()
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
    pub async fn blob_size(&self, digest: Digest) -> Result<Option<u64>, ApiError> {
        self.core.blob_size(digest).await
    }

    /// A line to the worker that runs the job. `by` says who wants it, for this log and the worker's.
    ///
    /// # Errors
    /// As [`Client::console`](executr_api::Client::console).
    pub async fn console(&self, job: JobId, by: String) -> Result<ConsoleLine, ApiError> {
        self.core.console(job, by).await
    }

    /// Whether it can do its work: the store answers and it is not stopping.
    ///
    /// # Errors
    /// `Unavailable`, saying why not.
    pub async fn health(&self) -> Result<(), ApiError> {
        self.core.refuse_when_stopping()?;
        match timeout(HEALTH, self.core.store.ping()).await {
            Ok(answer) => answer.map_err(refusal::store),
            Err(_) => Err(ApiError::new(
                ErrorCode::Unavailable,
                format!(
                    "the database doesn't answer within {HEALTH:?}; see whether it runs and can be reached from here"
                ),
            )),
        }
    }

    /// What is true just now, for metrics.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn gauges(&self) -> Result<Gauges, ApiError> {
        let stats = self.core.stats().await?;
        let runs = match self.core.store.runs() {
            Some(runs) => runs.run_counts().await.map_err(refusal::store)?,
            None => BTreeMap::new(),
        };
        Ok(Gauges {
            runs,
            jobs_in_queue: stats.jobs_by_status.get(JobStatus::Pending.as_str()).copied().unwrap_or_default(),
            active_executors: stats.active_executors,
            cache_bytes: self.core.connected().iter().map(|seen| seen.cache_bytes).sum(),
            store: self.core.store.counters(),
        })
    }

    /// Stops: held exchanges are answered with nothing, later ones refused, what is only in memory is written.
    pub async fn shutdown(&self) {
        self.core.stop();
        // What fails was logged; there is nobody left to tell.
        let _ = self.core.exchange_presence().await;
    }
}

impl Core {
    pub(crate) async fn stats(&self) -> Result<StatsView, ApiError> {
        let mut stats = self.store.stats().await.map_err(refusal::store)?;
        stats.active_executors = self.active_workers().await?;
        Ok(stats)
    }
}
