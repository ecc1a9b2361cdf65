//! What is asked of a store about runs, and what it answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use executr_api::{Artifact, Fence, JobState, Need, RunEvent, RunQuery, RunState, WorkspaceId};
use executr_spec::{Digest, JobId, RunId, Tenant, Timestamp, WorkerId};

use super::{JobRecord, NewJob, Readied, StoreError};

/// When a job of a run goes on once all its needs are final, as far as a store can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Gate {
    /// When nothing before it failed or was cancelled, and the run wasn't asked to stop.
    #[default]
    Success,
    /// When something before it failed.
    Failure,
    /// Always.
    Always,
    /// When the run was asked to stop.
    Cancelled,
    /// When [`Gate::Success`] holds, the coordinator is asked; else it is as there.
    AskAfterSuccess,
    /// The coordinator is asked, whatever happened before.
    Ask,
}

/// A run to record, with all its jobs.
#[derive(Clone, Debug, PartialEq)]
pub struct NewRun {
    /// Its id; made by the coordinator.
    pub id: RunId,
    /// On whose behalf.
    pub tenant: Tenant,
    /// Its workflow's name.
    pub name: String,
    /// Whether the first failure stops what has not started.
    pub fail_fast: bool,
    /// After this long it is cancelled.
    pub timeout: Option<Duration>,
    /// The tree its jobs start from.
    pub source: Option<Digest>,
    /// The run of which it repeats jobs.
    pub rerun_of: Option<RunId>,
    /// The plan as text; the store only keeps it.
    pub plan: Arc<str>,
    /// Blobs that must be kept for it: those of its source tree.
    pub blobs: Vec<Digest>,
    /// See `RunSubmission`.
    pub idempotency_key: Option<String>,
    /// Its jobs; each after those it needs. Their submission numbers follow this order.
    pub jobs: Vec<NewRunJob>,
}

/// A job of a run to record.
#[derive(Clone, Debug, PartialEq)]
pub struct NewRunJob {
    /// The job. Its idempotency key is empty; its `run_at` too.
    pub job: NewJob,
    /// Its name, unique in the run.
    pub name: String,
    /// The places of the jobs it waits for, sorted.
    pub needs: Vec<u32>,
    /// When it goes on after that.
    pub gate: Gate,
    /// Whether its failure counts as success for those after it and for the run.
    pub continue_on_error: bool,
    /// The executor's name, when that holds its workspace on one worker.
    pub pinned: Option<String>,
    /// It was done in an earlier run: it is completed at once, with these.
    pub done: Option<Handed>,
}

/// What a job handed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handed {
    /// What its steps handed on.
    pub outputs: BTreeMap<String, String>,
    /// The artifacts it saved. The blobs of their trees are kept for it: see [`RunStore::keep_artifact`].
    pub artifacts: Vec<Artifact>,
}

/// What followed in a run from a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunProgress {
    /// Runs of which events were written.
    pub changed: Vec<RunId>,
    /// Jobs about which the coordinator is asked now.
    pub asked: Vec<JobId>,
    /// Jobs that became final besides those of the command itself: skipped or cancelled.
    pub ended: Vec<(JobId, JobState)>,
    /// Running jobs that were asked to stop.
    pub cancelling: Vec<(Fence, WorkerId)>,
    /// Workspaces that are needed no more, and who holds them.
    pub released: Vec<(WorkspaceId, WorkerId)>,
    /// What became ready.
    pub readied: Vec<Readied>,
}

/// What became of a submitted run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunAnswer {
    /// Its id, or the earlier run's.
    pub id: RunId,
    /// Whether it is an earlier run with the same idempotency key.
    pub existing: bool,
    /// What followed.
    pub progress: RunProgress,
}

/// A job about which the store asks: all its needs are final.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// The job.
    pub job: JobId,
    /// Its run.
    pub run: RunId,
    /// What was asked for.
    pub spec: executr_spec::SpecJson,
    /// Its place in the run's plan, from 0.
    pub index: u32,
    /// Its direct needs by name.
    pub needs: BTreeMap<String, Need>,
    /// Whether something before it failed (and didn't count as success), however far before.
    pub failed_before: bool,
    /// Whether something before it was cancelled.
    pub cancelled_before: bool,
    /// Whether the run was asked to stop.
    pub run_cancelling: bool,
}

/// An answer to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The job.
    pub job: JobId,
    /// What becomes of it.
    pub verdict: GateVerdict,
}

/// What becomes of a job whose needs are final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GateVerdict {
    /// It runs.
    Run,
    /// It is skipped.
    Skip,
    /// Its condition can't be decided: it fails, with this message.
    Fail(String),
}

/// What a claim brings for a job of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedRun {
    /// The run.
    pub run: RunId,
    /// Its direct needs by name.
    pub needs: BTreeMap<String, Need>,
    /// All artifacts of the jobs it needs directly or through others that its own spec could name: those made by any job
    /// before it (by place), by name.
    pub artifacts: Vec<Artifact>,
    /// The workspace it uses, when its executor is pinned.
    pub workspace: Option<WorkspaceId>,
}

/// A run as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRecord {
    /// The run.
    pub id: RunId,
    /// On whose behalf.
    pub tenant: Tenant,
    /// Its workflow's name.
    pub name: String,
    /// Where it stands.
    pub state: RunState,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When its first job was handed out.
    pub started_at: Option<Timestamp>,
    /// When it became final.
    pub completed_at: Option<Timestamp>,
    /// When it will be cancelled.
    pub deadline: Option<Timestamp>,
    /// Whether the first failure stops what has not started.
    pub fail_fast: bool,
    /// The tree its jobs start from.
    pub source: Option<Digest>,
    /// The run of which it repeats jobs.
    pub rerun_of: Option<RunId>,
    /// Why it was cancelled, else which job failed first.
    pub message: Option<String>,
    /// How many of its jobs are in each state; none with 0.
    pub jobs: BTreeMap<JobState, u64>,
    /// The number of its last event.
    pub last_event: u64,
}

/// A job of a run as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct RunJobRecord {
    /// Its place in the plan.
    pub index: u32,
    /// Its name in the run.
    pub name: String,
    /// Its direct needs' places.
    pub needs: Vec<u32>,
    /// Whether its failure counts as success.
    pub continue_on_error: bool,
    /// The job itself.
    pub job: JobRecord,
    /// What it handed on.
    pub handed: Handed,
}

/// A workspace that a worker holds, or should clean up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkspaceRecord {
    /// Which.
    pub id: WorkspaceId,
    /// Who holds it.
    pub worker: WorkerId,
    /// Whether its run needs it no more.
    pub released: bool,
}

/// An artifact as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactRecord {
    /// On whose behalf.
    pub tenant: Tenant,
    /// The run that made it.
    pub run: RunId,
    /// The run's name.
    pub run_name: String,
    /// The name, in the run, of the job that made it.
    pub job: String,
    /// Itself.
    pub artifact: Artifact,
    /// When it was recorded.
    pub created_at: Timestamp,
}

/// The durable graph of runs.
///
/// # The life of a job of a run
/// A job with needs is *waiting* until all its needs are final. Then its [`Gate`] is looked at, in the same transaction that made
/// the last need final: it goes on as any job does (ready or blocked), or becomes skipped, or it is asked about and stays
/// waiting until [`decide`](RunStore::decide). A job without needs is looked at when it is submitted. What happened before a
/// job is carried along: a job knows whether anything before it *failed* (unless `continue_on_error` took it) or was
/// *cancelled*, however far before; so the end of a job costs what its own successors cost.
///
/// # Stopping
/// When a job fails (and `continue_on_error` doesn't take it) in a run with `fail_fast`, the run *stops*: jobs of it that
/// were never handed out and whose gate is `Success` or `AskAfterSuccess` become cancelled, with a message naming the job that
/// failed; up to [`STOP_BATCH`] at once in the same transaction, the others by [`advance`](super::Store::advance); and those that still wait become so when
/// their turn comes (skipped instead, when something before them failed).
/// A job that is cancelled by itself (not by its run) counts as cancelled for those after it, and as a failure of the run only
/// in that the run ends `cancelled`.
/// [`cancel_run`](RunStore::cancel_run), or the run's deadline in [`advance`](super::Store::advance), stops likewise, whatever `fail_fast`
/// says, and besides asks running jobs to stop, except those whose gate is `Always` or `Cancelled` or that were asked about; the run is *cancelling* until all its jobs are final.
/// In a cancelling run only gates that say so (`Always`, `Cancelled`, `Ask`) let a job go on; all others are cancelled.
///
/// # The end
/// A run becomes final when all its jobs are: cancelled if it was cancelling; else failed if a job failed that
/// `continue_on_error` didn't take; else cancelled if a job was cancelled by itself; else completed. All skipped is completed.
///
/// # Workspaces
/// Jobs of one run with the same `pinned` name run on one worker. The first of them to become ready goes to any worker
/// (its class is its own); meanwhile the others that could be ready are blocked. The claim of the first makes its worker the holder:
/// the others become ready in the class of their own plus that worker ([`RequirementClass::on_worker`](executr_spec::RequirementClass::on_worker)).
/// When the lease of such a job runs out ([`advance`](super::Store::advance) makes it reclaimable) or the holder is lost, the workspace has no holder any more
/// and its generation goes up: the reclaimable job is the first again, the others that were ready are blocked. When all jobs that
/// use it are final it is released; it is told in `released` until the worker has [cleaned](RunStore::cleaned) it, or is forgotten.
///
/// # Events
/// Numbered from 1 in each run, written in the transaction of what they tell: `RunCreated`; `JobStarted` at each claim;
/// `JobRetrying`; `JobEnded`; `RunCancelling`; `RunEnded`. In one transaction: in the order of the command's items, and after each the
/// jobs that follow from it in the order of their places.
///
/// # Retention
/// Jobs of runs are not deleted one by one: [`delete_final`](super::Store::delete_final) deletes final runs whole (each counts as one),
/// with their events, but for artifacts, which go by [`delete_artifacts`](RunStore::delete_artifacts).
#[async_trait]
pub trait RunStore: Send + Sync + 'static {
    /// Records a run with all its jobs, or, when one is refused, nothing.
    async fn submit_run(&self, run: NewRun) -> Result<RunAnswer, StoreError>;

    /// Jobs that are asked about and not decided, oldest first.
    async fn questions(&self, limit: u32) -> Result<Vec<Question>, StoreError>;

    /// The questions about these jobs; those that are asked about no more are left out.
    async fn questions_of(&self, jobs: &[JobId]) -> Result<Vec<Question>, StoreError>;

    /// Decides. A job that isn't asked about (any more) is passed over.
    async fn decide(&self, decisions: Vec<Decision>) -> Result<RunProgress, StoreError>;

    /// Asks a run to stop. `None`: there is no such run. A final one, or one asked before, is left as it is.
    async fn cancel_run(&self, run: RunId, reason: &str) -> Result<Option<(RunState, RunProgress)>, StoreError>;

    /// One run.
    async fn run(&self, id: RunId) -> Result<Option<RunRecord>, StoreError>;

    /// A run's plan as text, as it was given. (Not a part of [`RunRecord`]: it can have many megabytes.)
    async fn run_plan(&self, id: RunId) -> Result<Option<Arc<str>>, StoreError>;

    /// How many runs are kept in each state; none with 0.
    async fn run_counts(&self) -> Result<BTreeMap<RunState, u64>, StoreError>;

    /// Runs, newest first. `query.limit` is set by the caller.
    async fn runs(&self, query: &RunQuery, tenant: Option<&Tenant>) -> Result<Vec<RunRecord>, StoreError>;

    /// Jobs of a run from place `from` on, in the order of their places.
    async fn run_jobs(&self, run: RunId, from: u32, limit: u32) -> Result<Vec<RunJobRecord>, StoreError>;

    /// What the claims of these jobs brought of their runs, as far as they are held by a worker: an answer may have been
    /// lost on its way there. Others are left out.
    async fn claimed_runs(&self, jobs: &[JobId]) -> Result<Vec<(JobId, ClaimedRun)>, StoreError>;

    /// The run a job belongs to, and its name there.
    async fn run_of(&self, job: JobId) -> Result<Option<(RunId, String)>, StoreError>;

    /// Events of a run after number `after`, in order.
    async fn events(&self, run: RunId, after: u64, limit: u32) -> Result<Vec<RunEvent>, StoreError>;

    /// Keeps blobs for an artifact that is about to be named in a result under this fence, or for a job handed over as done.
    /// They are let go with the artifact, or when the attempt ends without naming it.
    async fn keep_artifact(&self, job: JobId, tree: Digest, blobs: Vec<Digest>) -> Result<(), StoreError>;

    /// Artifacts of a run, or of all runs of the tenant when `run` is `None`; newest run first, then by place and name.
    async fn artifacts(
        &self,
        tenant: Option<&Tenant>,
        run: Option<RunId>,
        limit: u32,
    ) -> Result<Vec<ArtifactRecord>, StoreError>;

    /// Deletes up to `limit` artifacts of final runs recorded before `before`. Returns how many.
    async fn delete_artifacts(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError>;

    /// Workspaces that this worker holds or should clean up.
    async fn workspaces_of(&self, worker: &WorkerId) -> Result<Vec<WorkspaceRecord>, StoreError>;

    /// The worker has cleaned these up; they are forgotten.
    async fn cleaned(&self, worker: &WorkerId, workspaces: Vec<WorkspaceId>) -> Result<(), StoreError>;

    /// These workers are lost: their workspaces have no holder any more, and those released are forgotten.
    async fn lose_workspaces(&self, workers: Vec<WorkerId>) -> Result<RunProgress, StoreError>;
}

/// So many jobs are stopped in the transaction that stops their run; the others follow.
pub const STOP_BATCH: u32 = 1_000;
