//! What a store keeps.

use executr_api::{AttemptStatus, Fence, JobState, QueueWeight, Role, StepResult, Usage};
use executr_spec::{
    Digest, JobId, JobType, LeaseId, Offers, Priority, QueueName, RequirementClass, SpecJson, Tenant, Timestamp,
    TokenId, WorkerId,
};

/// A job.
#[derive(Clone, Debug, PartialEq)]
pub struct JobRecord {
    /// The job.
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
    /// Where it stands.
    pub state: JobState,
    /// Whether its lease ran out and another worker may take it.
    pub reclaimable: bool,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When its last attempt was handed out.
    pub started_at: Option<Timestamp>,
    /// When it became final.
    pub completed_at: Option<Timestamp>,
    /// When it is due, while it is scheduled.
    pub due_at: Option<Timestamp>,
    /// The number of its last attempt; 0 before the first.
    pub attempt: u32,
    /// Failed attempts.
    pub failures: u32,
    /// Lost leases.
    pub lost_leases: u32,
    /// How often a failed attempt is repeated.
    pub max_retries: u32,
    /// The worker that has it, or had it last.
    pub worker: Option<WorkerId>,
    /// When its live lease was last renewed.
    pub renewed_at: Option<Timestamp>,
    /// Of the last ended attempt.
    pub exit_code: Option<i32>,
    /// Why it failed or was cancelled.
    pub error_message: Option<String>,
    /// Of the last ended attempt.
    pub usage: Option<Usage>,
    /// Bytes of output of the last attempt.
    pub output_bytes: u64,
    /// All that was asked for.
    pub spec: SpecJson,
}

/// An attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptRecord {
    /// Its job, number and lease.
    pub fence: Fence,
    /// The worker that had it.
    pub worker: WorkerId,
    /// The address the worker gave.
    pub ip: Option<String>,
    /// When it was handed out.
    pub started_at: Timestamp,
    /// When its end was recorded.
    pub ended_at: Option<Timestamp>,
    /// How it stands.
    pub status: AttemptStatus,
    /// As reported.
    pub exit_code: Option<i32>,
    /// As reported.
    pub error_message: Option<String>,
    /// As reported.
    pub usage: Option<Usage>,
    /// As reported.
    pub steps: Vec<StepResult>,
    /// Bytes of output.
    pub output_bytes: u64,
}

/// A live lease.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseRecord {
    /// Its job, attempt and id.
    pub fence: Fence,
    /// Who holds it.
    pub worker: WorkerId,
    /// When it was handed out.
    pub started_at: Timestamp,
    /// When it runs out.
    pub expires_at: Timestamp,
    /// Whether its job was asked to stop.
    pub cancelling: bool,
    /// The job's tenant.
    pub tenant: Tenant,
    /// What it runs.
    pub spec: SpecJson,
}

impl LeaseRecord {
    /// The lease's id.
    #[must_use]
    pub fn id(&self) -> LeaseId {
        self.fence.lease
    }
}

/// A worker.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerRecord {
    /// The worker.
    pub id: WorkerId,
    /// What its operator calls it.
    pub name: String,
    /// The address it gave.
    pub ip: Option<String>,
    /// Its program's version; `None` for the original's executor.
    pub version: Option<String>,
    /// How many jobs it runs at a time.
    pub slots: u32,
    /// The queues it serves.
    pub queues: Vec<QueueWeight>,
    /// What it offers.
    pub offers: Offers,
    /// Whether it takes no new jobs.
    pub draining: bool,
    /// When it was last heard of. Written by the store's clock: ignored in `put_workers`.
    pub last_seen: Timestamp,
    /// Attempts finished well; in `put_workers` those since the last call.
    pub jobs_completed: u64,
}

/// An access token. Its secret is kept as a digest only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// By which it is named.
    pub id: TokenId,
    /// SHA-256 of the secret.
    pub hash: Digest,
    /// What it allows.
    pub role: Role,
    /// What people call it.
    pub name: Option<String>,
    /// On whose behalf its jobs are submitted.
    pub tenant: Tenant,
    /// When it was made. Written by the store's clock: ignored in `put_token`.
    pub created_at: Timestamp,
    /// Not valid from then on.
    pub expires_at: Option<Timestamp>,
}
