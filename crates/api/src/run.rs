//! Runs: one execution of a workflow each, its jobs and its events.

use std::collections::BTreeMap;

use executr_spec::workflow::RunPlan;
use executr_spec::{Digest, JobId, RunId, Timestamp, WorkerId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::job::JobState;

/// Where a run stands. Drawn in `docs/states.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Some of its jobs aren't final.
    Running,
    /// Likewise, and it was asked to stop.
    Cancelling,
    /// Final: no job failed but those that may.
    Completed,
    /// Final: a job failed.
    Failed,
    /// Final: it was asked to stop before its jobs were done.
    Cancelled,
}

impl RunState {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Running, Self::Cancelling, Self::Completed, Self::Failed, Self::Cancelled];

    /// Whether nothing will change any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Cancelling => "cancelling",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How a run is cancelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RunCancel {
    /// What is meant for it goes on: jobs and steps with `always()` or `cancelled()`.
    #[default]
    InOrder,
    /// At once: nothing more is started, and what runs is killed. Places of jobs are cleaned up even so. Also for a run that
    /// was cancelled in order before.
    AtOnce,
}

/// What `POST /api/v1/workflows` takes: a plan. Clients make it of a file, with `executr_spec::workflow`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunSubmission {
    /// What to run.
    pub plan: RunPlan,
    /// A second submission with the same key by the same tenant is answered with the first one's run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunView {
    /// The run.
    pub id: RunId,
    /// Its workflow's name.
    pub name: String,
    /// Where it stands.
    pub state: RunState,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When its first job was handed out.
    pub started_at: Option<Timestamp>,
    /// When it became final.
    pub completed_at: Option<Timestamp>,
    /// The tree its jobs start from.
    pub source: Option<Digest>,
    /// Whether the first failure stops what has not started.
    pub fail_fast: bool,
    /// The run of which this one repeats the jobs that did not succeed.
    pub rerun_of: Option<RunId>,
    /// Why it was cancelled, or which job failed first.
    pub message: Option<String>,
    /// How many of its jobs are in each state; those with none are left out.
    pub jobs: BTreeMap<JobState, u64>,
    /// The number of its last event.
    pub last_event: u64,
}

/// A job of a run, as far as the run is concerned. The whole of it is at `GET /jobs/{id}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunJobView {
    /// Its place in the plan, from 0.
    pub index: u32,
    /// Its name in the run.
    pub name: String,
    /// The job.
    pub id: JobId,
    /// Where it stands.
    pub state: JobState,
    /// The places of the jobs it needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<u32>,
    /// The number of its last attempt; 0 before the first.
    pub attempt: u32,
    /// The worker that has it, or had it last.
    pub executor_id: Option<WorkerId>,
    /// When its last attempt was handed out.
    pub started_at: Option<Timestamp>,
    /// When it became final.
    pub completed_at: Option<Timestamp>,
    /// Of its last attempt.
    pub exit_code: Option<i32>,
    /// Why it failed, was cancelled or skipped.
    pub error_message: Option<String>,
    /// Whether its failure counts as success.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub continue_on_error: bool,
    /// What its steps handed on; `needs.<name>.outputs` in expressions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, String>,
    /// The artifacts it made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
}

/// An artifact: a tree that a job made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Artifact {
    /// Its name, unique in the run.
    pub name: String,
    /// The digest of its tree's manifest.
    pub tree: Digest,
    /// The bytes of its files.
    pub size: u64,
    /// How many files it has.
    pub files: u64,
}

/// How a need ended, as its successors see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NeedResult {
    /// It ended well.
    Success,
    /// It ended badly (also when that counts as success for the run).
    Failure,
    /// It was ended by request.
    Cancelled,
    /// It didn't run.
    Skipped,
}

impl NeedResult {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }

    /// How a final job looks to its successors; `None` while it isn't final.
    #[must_use]
    pub fn of(state: JobState) -> Option<Self> {
        match state {
            JobState::Completed => Some(Self::Success),
            JobState::Failed => Some(Self::Failure),
            JobState::Cancelled => Some(Self::Cancelled),
            JobState::Skipped => Some(Self::Skipped),
            _ => None,
        }
    }
}

/// One job that another needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Need {
    /// How it ended.
    pub result: NeedResult,
    /// What its steps handed on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, String>,
}

/// What a lease on a job of a run brings besides the job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunContext {
    /// The run.
    pub run: RunId,
    /// The jobs it needs directly, by their names in the run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub needs: BTreeMap<String, Need>,
    /// The artifacts that its inputs name, as far as they were made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
    /// Of an executor that holds its workspace on one worker: the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<WorkspaceLease>,
}

/// A workspace that one worker holds for a run.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct WorkspaceId {
    /// The run.
    pub run: RunId,
    /// The executor's name in the workflow.
    pub executor: String,
    /// Counted up whenever the worker that held it was lost.
    pub generation: u32,
}

/// What a worker needs to set a workspace up: all that will use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkspaceLease {
    /// Which.
    pub id: WorkspaceId,
    /// The jobs of the run that use it, in the order of the plan.
    pub jobs: Vec<WorkspaceJob>,
}

/// A job that uses a workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkspaceJob {
    /// Its name in the run.
    pub name: String,
    /// The names of its steps, else their numbers from 1.
    pub steps: Vec<String>,
}

/// A transition of a run, numbered from 1 without gaps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunEvent {
    /// Its number in the run.
    pub number: u64,
    /// When, by the store's clock.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub kind: RunEventKind,
}

/// What happened in a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RunEventKind {
    /// It was recorded.
    RunCreated,
    /// A job was handed out.
    JobStarted {
        /// Its name in the run.
        job: String,
        /// The attempt, from 1.
        attempt: u32,
        /// The worker.
        worker: WorkerId,
    },
    /// An attempt of a job ended, or was lost, and there will be another.
    JobRetrying {
        /// Its name in the run.
        job: String,
        /// The attempt that ended.
        attempt: u32,
        /// Why.
        message: Option<String>,
    },
    /// A job became final.
    JobEnded {
        /// Its name in the run.
        job: String,
        /// How it stands.
        state: JobState,
        /// Its last attempt; 0 when there was none.
        attempt: u32,
        /// Of its last attempt.
        exit_code: Option<i32>,
        /// Why it failed, was cancelled or skipped.
        message: Option<String>,
    },
    /// It was asked to stop.
    RunCancelling {
        /// Why.
        reason: String,
    },
    /// It became final.
    RunEnded {
        /// How it stands.
        state: RunState,
    },
}

impl RunEventKind {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::RunCreated => "run_created",
            Self::JobStarted { .. } => "job_started",
            Self::JobRetrying { .. } => "job_retrying",
            Self::JobEnded { .. } => "job_ended",
            Self::RunCancelling { .. } => "run_cancelling",
            Self::RunEnded { .. } => "run_ended",
        }
    }
}

/// Which runs to list; the newest come first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunQuery {
    /// Only those in this state.
    pub state: Option<RunState>,
    /// Only those of this workflow.
    pub name: Option<String>,
    /// At most so many; 100 when absent, 1000 at most.
    pub limit: Option<u32>,
    /// Only those submitted before this one.
    pub before: Option<RunId>,
}

/// Which events of a run to read, and for how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunEventFollow {
    /// Those after this number.
    pub after: u64,
    /// Go on until the run is final.
    pub follow: bool,
}

/// An artifact, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ArtifactView {
    /// The run that made it.
    pub run: RunId,
    /// That run's workflow.
    pub workflow: String,
    /// The job that made it, by its name in the run.
    pub job: String,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// Itself.
    #[serde(flatten)]
    pub artifact: Artifact,
}

/// Which artifacts to list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArtifactQuery {
    /// Only those of this run.
    pub run: Option<RunId>,
    /// At most so many; 1000 when absent, 10000 at most.
    pub limit: Option<u32>,
}

/// Which jobs of an earlier run to repeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RerunScope {
    /// All.
    #[default]
    All,
    /// Those that did not succeed, and what comes after them; the others' outputs and artifacts are taken over.
    Failed,
}

/// What happened to a step, as a mark in its attempt's output: the objects of the log format `json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StepMark {
    /// What.
    pub event: StepEvent,
    /// The step's name, else its number from 1.
    pub step: String,
    /// The try, from 1.
    pub attempt: u32,
    /// How many tries there may be.
    pub max_attempts: u32,
    /// Of a try that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Of a try that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Until the next try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// On `start`: the step's environment as evaluated, secrets masked, without the fixed base.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// The transitions of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepEvent {
    /// A try begins.
    Start,
    /// A try failed, and there will be another.
    Retry,
    /// The last try failed.
    Failed,
    /// A try ended well.
    Success,
    /// It isn't run.
    Skipped,
}
