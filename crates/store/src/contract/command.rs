//! What is asked of a store.

use std::sync::Arc;
use std::time::Duration;

use executr_api::{AttemptResult, Fence};
use executr_spec::{
    Backoff, Digest, JobId, JobType, Offers, Priority, QueueName, RequirementClass, SpecJson, Tenant, Timestamp,
    WorkerId,
};

/// A job to record: what the store itself acts on, and the whole as text.
#[derive(Clone, Debug, PartialEq)]
pub struct NewJob {
    /// Its id; made by the coordinator.
    pub id: JobId,
    /// On whose behalf.
    pub tenant: Tenant,
    /// The word by which users group their jobs.
    pub job_type: JobType,
    /// Where it waits.
    pub queue: QueueName,
    /// What it asks of a worker.
    pub class: RequirementClass,
    /// Who goes first.
    pub priority: Priority,
    /// Not before this time.
    pub run_at: Option<Timestamp>,
    /// How often a failed attempt is repeated.
    pub max_retries: u32,
    /// How long to wait before that.
    pub backoff: Backoff,
    /// See `JobSpec`.
    pub idempotency_key: Option<String>,
    /// The key, and how many with it may be ready or running at a time.
    pub concurrency: Option<(String, u32)>,
    /// Blobs that it names and that must be kept for it.
    pub blobs: Vec<Digest>,
    /// All that was asked for.
    pub spec: SpecJson,
}

/// A worker's wish for jobs.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// The worker.
    pub worker: WorkerId,
    /// The address it gave.
    pub ip: Option<String>,
    /// At most so many jobs.
    pub limit: u32,
    /// The queues to take from, the first first. (Weights are drawn by the coordinator.)
    pub queues: Vec<QueueName>,
    /// What the worker can run.
    pub offers: Arc<Offers>,
    /// How long the leases last.
    pub lease: Duration,
}

/// The end of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Finish {
    /// What the worker reported, with the last of its output.
    pub result: AttemptResult,
}

/// A lease to prolong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// Which.
    pub fence: Fence,
    /// For how long from now.
    pub lease: Duration,
}

/// A lease to give back unstarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Return {
    /// Which.
    pub fence: Fence,
}
