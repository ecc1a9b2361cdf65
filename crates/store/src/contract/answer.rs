//! What a store answers.

use super::runs::{ClaimedRun, RunProgress};
use executr_api::output::Records;
use executr_api::{Fence, JobState};
use executr_spec::{JobId, QueueName, RequirementClass, SpecJson, Tenant, Timestamp, WorkerId};

/// Jobs of this queue and class became ready: waiting workers may want to know.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Readied {
    /// The queue.
    pub queue: QueueName,
    /// The class.
    pub class: RequirementClass,
    /// How many jobs.
    pub jobs: u32,
}

/// What became of a submission.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubmitAnswer {
    /// One for each job.
    pub jobs: Vec<Submitted>,
    /// What became ready.
    pub readied: Vec<Readied>,
}

/// What became of one submitted job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// Its id, or the earlier job's.
    pub id: JobId,
    /// Where that stands.
    pub state: JobState,
    /// Whether it is an earlier job with the same idempotency key.
    pub existing: bool,
    /// When it was recorded.
    pub created_at: Timestamp,
}

/// What a claim got.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClaimAnswer {
    /// The leases.
    pub leases: Vec<Claimed>,
    /// Leases of other workers that were revoked for them, with their holders.
    pub revoked: Vec<(Fence, WorkerId)>,
    /// What followed in runs.
    pub run: RunProgress,
}

/// A lease handed out.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimed {
    /// The lease.
    pub fence: Fence,
    /// The job's tenant.
    pub tenant: Tenant,
    /// The job's queue.
    pub queue: QueueName,
    /// What to run.
    pub spec: SpecJson,
    /// When the job was submitted.
    pub created_at: Timestamp,
    /// When the lease was handed out.
    pub started_at: Timestamp,
    /// When it runs out.
    pub expires_at: Timestamp,
    /// Of a job of a run: what it has of the run.
    pub run: Option<Box<ClaimedRun>>,
}

/// Whether a result, or a lease given back, was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are taken, and a box for each would cost more")]
pub enum FinishAnswer {
    /// It was taken, now.
    Taken(Finished),
    /// The same fence's result was taken before; nothing changed.
    Before(JobState),
    /// The lease is not held any more; nothing changed.
    LeaseLost,
}

/// What taking a result did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Where the job stands now.
    pub state: JobState,
    /// When the attempt was handed out.
    pub started_at: Timestamp,
    /// Which worker had it.
    pub worker: WorkerId,
    /// When the next attempt is due, if there is one later.
    pub next_at: Option<Timestamp>,
    /// What became ready by it: this job again, or one that waited for its concurrency key.
    pub readied: Vec<Readied>,
    /// What followed in its run, if it is of one. (`readied` is above.)
    pub run: RunProgress,
}

/// Whether a lease was prolonged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewAnswer {
    /// It is held.
    Renewed {
        /// Until then.
        expires_at: Timestamp,
        /// Whether the job was asked to stop.
        cancelling: bool,
    },
    /// It is not held any more.
    LeaseLost,
}

/// What became of a wish to cancel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CancelAnswer {
    /// The job was waiting and is cancelled.
    Cancelled(Cancelled),
    /// A worker has it, and it is now (or was already) asked to stop.
    Cancelling {
        /// Under which lease it runs.
        fence: Fence,
        /// The worker.
        worker: WorkerId,
    },
    /// Left alone: a worker has it, and only pending jobs were to be cancelled.
    Running,
    /// Left alone: it is final.
    Final(JobState),
    /// There is no such job.
    NotFound,
}

/// What cancelling a waiting job did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cancelled {
    /// What became ready by it.
    pub readied: Vec<Readied>,
    /// What followed in its run, if it is of one. (`readied` is above.)
    pub run: RunProgress,
}

/// What the passing of time did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advanced {
    /// What became ready: scheduled jobs whose time has come, jobs that became reclaimable, jobs whose key came free.
    pub readied: Vec<Readied>,
    /// Jobs that became reclaimable.
    pub reclaimable: Vec<(JobId, WorkerId)>,
    /// Jobs that became final, and their last lease.
    pub ended: Vec<(JobId, JobState, Fence, WorkerId)>,
    /// The next time there will be something to do, as far as is known now. A lease's end counts only when `may_reclaim`.
    pub next_at: Option<Timestamp>,
    /// What followed in runs. (`readied` is above.)
    pub run: RunProgress,
    /// True when a limit cut the work short: call again at once.
    pub more: bool,
}

/// What became of appended output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendAnswer {
    /// All of it is there; the output ends here.
    Appended {
        /// The position after the last that is there.
        end: u64,
    },
    /// Positions before the chunk are missing; nothing was taken.
    Gap {
        /// The position after the last that is there.
        end: u64,
    },
    /// The lease is not held any more; nothing was taken.
    LeaseLost,
}

/// Some output of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputSlice {
    /// The records, the first one cut so that it starts at the asked offset.
    pub records: Records,
    /// The position after the last that is there now.
    pub end: u64,
    /// Whether the attempt has ended: nothing will be added.
    pub sealed: bool,
}
