//! What is asked of a store about runs, and what it answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use executr_api::{Artifact, Fence, JobState, Need, RunCancel, RunEvent, RunQuery, RunState, WorkspaceId};
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
    /// The coordinator is asked, whatever happened before, unless the run was asked to stop.
    AskUnlessCancelled,
}

impl Gate {
    /// Every gate.
    pub const ALL: [Self; 7] = [
        Self::Success,
        Self::Failure,
        Self::Always,
        Self::Cancelled,
        Self::AskAfterSuccess,
        Self::Ask,
        Self::AskUnlessCancelled,
    ];
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
    /// The artifacts that its spec's inputs name: the place of the job that makes each, and its name. A claim brings those
    /// of them that were made.
    pub inputs: Vec<(u32, String)>,
    /// It was done in an earlier run: it is completed at once, with this.
    pub done: Option<Done>,
}

/// What a job that was done in an earlier run takes over from there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// What it handed on.
    pub handed: Handed,
    /// Of each tree among its artifacts the blobs, which are kept for them from the moment the run is recorded.
    pub kept: Vec<(Digest, Vec<Digest>)>,
}

/// What a job handed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handed {
    /// What its steps handed on.
    pub outputs: BTreeMap<String, String>,
    /// The artifacts it saved, by name. The blobs of their trees are kept for it: see [`RunStore::keep_artifact`] and [`Done`].
    pub artifacts: Vec<Artifact>,
}

/// A run became final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunEnd {
    /// The run.
    pub run: RunId,
    /// How it ended.
    pub state: RunState,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When it became final.
    pub completed_at: Timestamp,
}

/// What followed in a run from a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunProgress {
    /// Runs of which events were written, in the order of their ids.
    pub changed: Vec<RunId>,
    /// Runs that became final. Each is told once, in the answer of the command that ended it.
    pub over: Vec<RunEnd>,
    /// Jobs about which the coordinator is asked now.
    pub asked: Vec<JobId>,
    /// Jobs that became final without a worker's doing: completed because they were done, skipped, cancelled with their run, or failed by
    /// a [`GateVerdict::Fail`].
    pub ended: Vec<(JobId, JobState)>,
    /// Running jobs that were asked to stop.
    pub cancelling: Vec<(Fence, WorkerId)>,
    /// Likewise, at once: those that were asked before, too.
    pub at_once: Vec<(Fence, WorkerId)>,
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
    /// As the question said it: whether the run was asked to stop.
    pub run_cancelling: bool,
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
    /// Of the artifacts named in [`NewRunJob::inputs`] those that were made, in that order.
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

/// The durable graph of runs. Its rules as functions: [`lifecycle::graph`](crate::lifecycle::graph).
///
/// # The life of a job of a run
/// A job with needs is *waiting* until all its needs are final. Then its [`Gate`] is looked at, in the same transaction that made
/// the last need final: it goes on as any job does (ready or blocked), or becomes skipped or cancelled, or it is asked about and stays
/// waiting until [`decide`](RunStore::decide). A job without needs is looked at when it is submitted; one that was `done` is
/// completed then, whatever it needs. What happened before a
/// job is carried along: a job knows whether anything before it *failed* (unless `continue_on_error` took it) or was
/// *cancelled*, however far before (also what ended after a job in between was cancelled while it waited); so the end of a job costs
/// what its own successors cost.
/// A job's outputs and artifacts are those of the attempt that made it final.
///
/// # Stopping
/// When a job fails (and `continue_on_error` doesn't take it) in a run with `fail_fast`, the run *stops*: jobs of it that
/// were never handed out, whose needs are final and whose gate is `Success` or `AskAfterSuccess` become cancelled, with a message naming the job that
/// failed first, in the same transaction; those whose needs aren't final become so when
/// their turn comes (skipped instead, when something before them failed or was cancelled).
/// A job that fails with a result that [fails its run](executr_api::AttemptResult::fails_run) takes `continue_on_error` from itself
/// and gives its run `fail_fast`, for good, before what follows is looked at.
/// A job that is cancelled by itself (not by its run) counts as cancelled for those after it, and as a failure of the run only
/// in that the run ends `cancelled`.
/// [`cancel_run`](RunStore::cancel_run), or the run's deadline in [`advance`](super::Store::advance), makes the run *cancelling* until all its
/// jobs are final, whatever `fail_fast` says. Only gates that say so (`Always`, `Cancelled`, `Ask`) let a job go on in it: running jobs with others are asked
/// to stop, those that nobody has and whose needs are final are cancelled at once, also when they were handed out before, and the others when their turn comes.
/// [`RunCancel::AtOnce`] spares none: every job that nobody has is cancelled, whatever its gate and its needs, and all others are asked to stop; so nothing
/// of the run can start any more. That their workers should hurry is not kept: it is told again to whoever asks again.
///
/// # The end
/// A run becomes final when all its jobs are: cancelled if it was cancelling; else failed if a job failed that
/// `continue_on_error` didn't take; else cancelled if a job was cancelled by itself; else completed. All skipped is completed.
///
/// # In one transaction
/// After each item of a command (a result, a job to cancel, a decision): the job of that item ends; then what follows in its run, in
/// the order of the places; then the run's end; then the permits of all that ended are given back, in the order of their ends.
/// In [`advance`](super::Store::advance): leases, then deadlines of runs (at most `limit`, in the order of deadline and submission), then scheduled jobs.
///
/// # Workspaces
/// Jobs of one run with the same `pinned` name run on one worker: the *holder* of their workspace, which is the worker that
/// claims the first of them. Before there is a holder each stands in the ready set in its own class; the claim that makes a holder moves those
/// in the ready set to their class [held to that worker](executr_spec::RequirementClass::on_worker), and each that comes later enters there.
/// A pinned job whose lease ran out stands in the ready set in its own class again, if its worker is the holder: whichever worker claims it becomes the
/// holder. When that is another one, the workspace's generation goes up (from 1), the others are moved to the new holder, and the old
/// workspace is released. When the holder is [lost](RunStore::lose_workspaces) there is none any more, its generation goes up, and jobs in the ready set are moved back to their own class.
/// What is moved is told in `readied`.
/// When all jobs that use a workspace are final it is released. A released one is told to its worker until the worker has
/// [cleaned](RunStore::cleaned) it, or is lost, or the run is deleted. The worker itself looks to it that attempts of its own that still use it end first.
///
/// # Events
/// Numbered from 1 in each run, written in the transaction of what they tell: `RunCreated`; `JobStarted` at each claim;
/// `JobRetrying` when an attempt failed that is repeated, was given back, or (before `JobStarted`) is lost to another claim; `JobEnded`; `RunCancelling`; `RunEnded`.
///
/// # Retention
/// Jobs of runs are not deleted one by one: [`delete_final`](super::Store::delete_final) deletes, after jobs, final runs whole (each counts as one),
/// with their events, but for artifacts, which go by [`delete_artifacts`](RunStore::delete_artifacts). A run is hidden at once; its jobs may go in several steps.
#[async_trait]
pub trait RunStore: Send + Sync + 'static {
    /// Records a run with all its jobs, or, when one is refused, nothing ([`StoreError::TooManyClasses`] names its place). A run with an idempotency
    /// key that its tenant has used for a run is answered with the earlier run, as long as that is kept. A run without jobs is completed at once.
    async fn submit_run(&self, run: NewRun) -> Result<RunAnswer, StoreError>;

    /// Jobs that are asked about and not decided, oldest first.
    async fn questions(&self, limit: u32) -> Result<Vec<Question>, StoreError>;

    /// The questions about these jobs; those that are asked about no more are left out.
    async fn questions_of(&self, jobs: &[JobId]) -> Result<Vec<Question>, StoreError>;

    /// Decides. A job that isn't asked about (any more) is passed over. So is one whose run was asked to stop after the question was
    /// put; that one is asked about again, in the answer's [`asked`](RunProgress::asked).
    async fn decide(&self, decisions: Vec<Decision>) -> Result<RunProgress, StoreError>;

    /// Asks a run to stop. `None`: there is no such run. A final one, or in order one asked before, is left as it is; the first
    /// reason stays. Returns how it stands now.
    async fn cancel_run(
        &self,
        run: RunId,
        how: RunCancel,
        reason: &str,
    ) -> Result<Option<(RunState, RunProgress)>, StoreError>;

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

    /// Keeps blobs for an artifact whose tree is `tree`, of a running job of a run, whose result is about to name it. For any
    /// other job this does nothing; one that was done before brings them along, see [`Done`].
    /// They are let go with the artifact, or when an attempt ends without being final and naming it.
    async fn keep_artifact(&self, job: JobId, tree: Digest, blobs: Vec<Digest>) -> Result<(), StoreError>;

    /// Artifacts of a run (of all when `None`), of this tenant (of all when `None`); newest run first, then by place and name. Those of deleted runs too.
    async fn artifacts(
        &self,
        tenant: Option<&Tenant>,
        run: Option<RunId>,
        limit: u32,
    ) -> Result<Vec<ArtifactRecord>, StoreError>;

    /// Deletes up to `limit` artifacts, recorded before `before`, of runs that are final or deleted; oldest first. Returns how many.
    async fn delete_artifacts(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError>;

    /// Workspaces that this worker holds or should clean up, in the order of their ids.
    async fn workspaces_of(&self, worker: &WorkerId) -> Result<Vec<WorkspaceRecord>, StoreError>;

    /// The worker has cleaned these up; they are forgotten.
    async fn cleaned(&self, worker: &WorkerId, workspaces: Vec<WorkspaceId>) -> Result<(), StoreError>;

    /// These workers are lost: their workspaces have no holder any more, and those released are forgotten.
    async fn lose_workspaces(&self, workers: Vec<WorkerId>) -> Result<RunProgress, StoreError>;
}
