//! Jobs and attempts as the API shows them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use executr_spec::{Digest, JobId, JobSpec, JobType, Priority, RunId, Timestamp, WorkerId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::exchange::{StepResult, Usage};

/// The five words of the original for where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// Not started: ready, scheduled or blocked.
    Pending,
    /// A worker has it; also while it is being cancelled.
    Running,
    /// Ended well.
    Completed,
    /// Ended badly, and no retry is left.
    Failed,
    /// Ended because somebody asked for it.
    Cancelled,
}

impl JobStatus {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Running, Self::Completed, Self::Failed, Self::Cancelled];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for JobStatus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| format!("`{text}` is not a status; use pending, running, completed, failed or cancelled"))
    }
}

/// Exactly where a job stands. Drawn in `docs/states.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits for its `run_at`, or for the next attempt's backoff to pass.
    Scheduled,
    /// Waits for another job with its concurrency key to end.
    Blocked,
    /// Waits for the jobs it needs, or for the decision whether it runs.
    Waiting,
    /// Could run now; waits for a worker.
    Ready,
    /// A worker holds a lease on it (which may have run out, when nobody else has taken it yet).
    Running,
    /// Running, and asked to stop.
    Cancelling,
    /// Final: ended well.
    Completed,
    /// Final: ended badly.
    Failed,
    /// Final: ended by request.
    Cancelled,
    /// Final: its condition said no.
    Skipped,
}

impl JobState {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Scheduled,
        Self::Blocked,
        Self::Waiting,
        Self::Ready,
        Self::Running,
        Self::Cancelling,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::Skipped,
    ];

    /// The original's word for it.
    #[must_use]
    pub fn status(self) -> JobStatus {
        match self {
            Self::Scheduled | Self::Blocked | Self::Waiting | Self::Ready => JobStatus::Pending,
            Self::Running | Self::Cancelling => JobStatus::Running,
            // The original has no word for it; nothing went wrong.
            Self::Completed | Self::Skipped => JobStatus::Completed,
            Self::Failed => JobStatus::Failed,
            Self::Cancelled => JobStatus::Cancelled,
        }
    }

    /// Whether nothing will change any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled | Self::Skipped)
    }

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Blocked => "blocked",
            Self::Waiting => "waiting",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Cancelling => "cancelling",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How an attempt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttemptStatus {
    /// A worker runs it.
    Running,
    /// Ended well.
    Completed,
    /// Ended badly.
    Failed,
    /// Ended by request.
    Cancelled,
    /// Its lease ran out and another worker took the job, or nobody did for too long.
    Lost,
    /// Given back before it was started.
    Returned,
}

/// One handing-out of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AttemptView {
    /// The lease's id.
    pub id: Uuid,
    /// The job.
    pub job_id: JobId,
    /// Counted from 1.
    pub attempt: u32,
    /// The worker that had it.
    pub executor_id: WorkerId,
    /// The address the worker gave.
    pub executor_ip: Option<String>,
    /// When the lease was handed out.
    pub started_at: Timestamp,
    /// When its end was recorded.
    pub ended_at: Option<Timestamp>,
    /// How it stands.
    pub status: AttemptStatus,
    /// The exit code of the step that decided it.
    pub exit_code: Option<i32>,
    /// Why it failed.
    pub error_message: Option<String>,
    /// What it used.
    pub usage: Option<Usage>,
    /// How each of its steps ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepResult>,
    /// Bytes of output it produced.
    pub output_bytes: u64,
}

/// A job: the original's fields first, then what Executr adds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobView {
    /// The job.
    pub id: JobId,
    /// The word by which users group their jobs.
    #[serde(rename = "type")]
    pub job_type: JobType,
    /// Of a job with one binary step: its URL.
    pub binary_url: Option<String>,
    /// Of a job with one binary step: its digest.
    pub binary_sha256: Option<Digest>,
    /// Of a job with one binary step: its arguments.
    pub arguments: Vec<String>,
    /// The job's variables.
    pub env_variables: BTreeMap<String, String>,
    /// Who goes first.
    pub priority: Priority,
    /// Where it stands, in the original's five words.
    pub status: JobStatus,
    /// The worker that has it, or had it last.
    pub executor_id: Option<WorkerId>,
    /// The last attempt's standard output, shortened by the original's rule; `null` in lists.
    pub stdout: Option<String>,
    /// The last attempt's standard error, likewise.
    pub stderr: Option<String>,
    /// The exit code of the step that decided the job.
    pub exit_code: Option<i32>,
    /// Why it failed, or why it was cancelled.
    pub error_message: Option<String>,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When its last attempt was handed out.
    pub started_at: Option<Timestamp>,
    /// When it became final.
    pub completed_at: Option<Timestamp>,
    /// When its worker was last heard of.
    pub last_heartbeat: Option<Timestamp>,
    /// How often it may be repeated after a failure.
    pub max_retries: u32,
    /// How often it has been.
    pub retry_count: u32,
    /// Not before then will it be handed out.
    pub retry_after: Option<Timestamp>,
    /// Exactly where it stands.
    pub state: JobState,
    /// The run it belongs to, if it does; only where one job is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<JobRun>,
    /// Why it waits, in words, while it does.
    pub waiting_for: Option<String>,
    /// The number of its last attempt; 0 before the first.
    pub attempt: u32,
    /// How many leases on it were lost.
    pub lost_leases: u32,
    /// What was asked for.
    pub spec: JobSpec,
    /// The last attempt's use of the machine.
    pub usage: Option<Usage>,
    /// Bytes of output of the last attempt.
    pub output_bytes: u64,
    /// All attempts, oldest first; only where one job is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<Vec<AttemptView>>,
}

/// The run a job belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobRun {
    /// The run.
    pub id: RunId,
    /// The job's name in it.
    pub name: String,
}

/// What a submission is answered with in bulk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubmittedJob {
    /// The job.
    pub id: JobId,
    /// Where it stands.
    pub status: JobStatus,
    /// True when an earlier submission with the same idempotency key was answered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub existing: bool,
}

/// What a bulk cancellation did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BulkCancelAnswer {
    /// How many were cancelled.
    pub cancelled: u64,
    /// How many were not.
    pub failed: u64,
    /// Why not, one text each.
    pub errors: Vec<String>,
}
