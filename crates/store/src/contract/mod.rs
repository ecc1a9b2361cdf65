//! The contract that every store keeps.
//!
//! Every command is one transaction: when it returns, all it did is on disk, or nothing happened. Answers come in the
//! order of what was asked. Only the store's clock counts (the database's, where there is one).

mod answer;
mod command;
mod error;
mod record;
mod runs;

use async_trait::async_trait;
use bytes::Bytes;
use executr_api::output::OutputChunk;
use executr_api::{Fence, JobQuery, RunCancel, StatsView};
use executr_spec::{Digest, JobId, QueueName, RequirementClass, RunId, Timestamp, TokenId, WorkerId};
use tokio::sync::broadcast;

pub use answer::{
    Advanced, AppendAnswer, CancelAnswer, Cancelled, ClaimAnswer, Claimed, FinishAnswer, Finished, OutputSlice,
    Readied, RenewAnswer, SubmitAnswer, Submitted,
};
pub use command::{Claim, Finish, NewJob, Renewal, Return};
pub use error::StoreError;
pub use record::{AttemptRecord, JobRecord, LeaseRecord, TokenRecord, WorkerRecord};
pub use runs::{
    ArtifactRecord, ClaimedRun, Decision, Done, Gate, GateVerdict, Handed, NewRun, NewRunJob, Question, RunAnswer,
    RunEnd, RunJobRecord, RunProgress, RunRecord, RunStore, WorkspaceRecord,
};

/// The most live requirement classes a queue may have; a job that would make one more is refused.
pub const MAX_CLASSES_PER_QUEUE: usize = 1_000;
/// So many leases of one job may be lost; after the last the job fails.
pub const MAX_LOST_LEASES: u32 = 3;
/// The most payload bytes of one blob chunk.
pub const BLOB_CHUNK: usize = 1 << 20;

/// The durable queue.
///
/// # What is ready, and who gets it
/// The ready set holds only jobs that could run now, in buckets (queue, requirement class, priority, tenant). A claim takes
/// from the given queues in the given order; in a queue by priority; in a priority by the *turn* of the tenant (the tenant
/// of this queue and priority served longest ago; one never served comes first, ties by name); of that tenant's jobs in
/// the classes the worker can run the oldest (by submission number). After each job taken, that tenant's turn is the
/// latest. A job that is handed out again keeps its submission number, so it comes first.
///
/// A class is *live* in a queue while one of its jobs there is not final. A store may notice late that it is no
/// longer, but at the latest in the next [`advance`](Store::advance).
///
/// # Concurrency keys
/// A job with a key holds a permit from the moment it becomes ready until it is final or scheduled again. It becomes
/// *blocked* instead of ready while as many permits of its key are held as its own limit allows. When a permit is given
/// back, blocked jobs of that key become ready in the order (priority, submission number), up to the first whose limit
/// doesn't allow it. Keys belong to their tenant. A retry without a wait was never scheduled and keeps its permit.
///
/// # Leases
/// A lease has run out when the clock has reached its `expires_at`. That makes its job *reclaimable* (by
/// [`advance`](Store::advance)): it stays `Running`, and stands in the ready set besides. Its holder may still renew (then it
/// leaves the ready set), finish or append output. Only when it is claimed, by whichever worker, is the old lease revoked:
/// the attempt is recorded as lost, `lost_leases` goes up, and a new attempt begins. A job that has lost
/// `MAX_LOST_LEASES - 1` leases isn't made reclaimable again: when its lease has been run out for as long as it was given
/// for, [`advance`](Store::advance) fails it. A cancelling job leaves the ready set; when its lease has run out,
/// [`advance`](Store::advance) cancels it. Both count the lease as lost.
///
/// # What a job shows
/// `exit_code` and `usage` are those of the last attempt that brought a result; `error_message` likewise (none after
/// success), but from the moment of a cancellation it is the reason of that. `output_bytes`, of a job as of an attempt, is
/// counted when the attempt ends and 0 before; it is where the output ends, whatever the worker reported.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Records jobs: all or, when one is refused, none ([`StoreError::TooManyClasses`] names it).
    /// A job with an idempotency key that its tenant has used, in this batch or before, is answered with the earlier job;
    /// nothing is recorded for it. A deleted job's key is free again.
    async fn submit(&self, jobs: Vec<NewJob>) -> Result<SubmitAnswer, StoreError>;

    /// Hands out up to `limit` jobs to each claim's worker, in the order of the claims.
    async fn claim(&self, claims: Vec<Claim>) -> Result<Vec<ClaimAnswer>, StoreError>;

    /// Takes results. Success completes the job. Failure schedules the next attempt while retries are left, else fails
    /// the job. `Cancelled` cancels it, if that was asked for; else it counts as a failure. A result that arrives while cancelling: success
    /// completes, all else cancels. Taken twice under the same fence, the second time changes nothing and is answered with
    /// `Before` and the job's state now. The last output may start after the end of what is there: what is missing between becomes a gap.
    async fn finish(&self, results: Vec<Finish>) -> Result<Vec<FinishAnswer>, StoreError>;

    /// Prolongs leases, each for its own period from now.
    async fn renew(&self, renewals: Vec<Renewal>) -> Result<Vec<RenewAnswer>, StoreError>;

    /// Gives back leases whose attempts were not started: their jobs become ready again, nothing is counted; the attempt is
    /// recorded as returned. A cancelling job becomes cancelled. Given back twice: `Before`. A result for a returned attempt,
    /// or a return of a finished one, is answered with `LeaseLost`.
    async fn give_back(&self, returns: Vec<Return>) -> Result<Vec<FinishAnswer>, StoreError>;

    /// Cancels: a job not handed out becomes cancelled at once, a running one cancelling.
    /// With `pending_only`, running jobs are left alone.
    async fn cancel(&self, jobs: Vec<JobId>, pending_only: bool, reason: &str)
    -> Result<Vec<CancelAnswer>, StoreError>;

    /// Moves what time moves: scheduled jobs whose time has come become ready (or blocked); leases that ran out make their jobs reclaimable
    /// (only when `may_reclaim`); see the rules on leases above. Leases first, in the order of the times at which something was to be done, then submission numbers; then
    /// scheduled jobs in the order (due, submission number). At most `limit` leases and `limit` scheduled jobs a call. For what it does about runs see [`RunStore`].
    async fn advance(&self, may_reclaim: bool, limit: u32) -> Result<Advanced, StoreError>;

    /// Deletes up to `limit` final jobs that became final before `before`, with attempts and output; oldest first. Returns how many.
    /// Workers not heard of since `before` are forgotten too; they don't count.
    async fn delete_final(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError>;

    /// One job.
    async fn job(&self, id: JobId) -> Result<Option<JobRecord>, StoreError>;

    /// All attempts of a job, the running one too, oldest first.
    async fn attempts(&self, id: JobId) -> Result<Vec<AttemptRecord>, StoreError>;

    /// Jobs, newest (by submission number) first. `query.limit` is set by the caller. Before a job that is unknown there are none.
    async fn jobs(&self, query: &JobQuery) -> Result<Vec<JobRecord>, StoreError>;

    /// Counts over all jobs (`active_executors` is left 0): every status, every priority and every state that isn't final has its
    /// entry, 0 or not; only queues with pending jobs have one. The cost doesn't depend on how many jobs there are.
    async fn stats(&self) -> Result<StatsView, StoreError>;

    /// The live classes of the queue in the order of their texts, and whether each has a job in the ready set now.
    async fn classes(&self, queue: &QueueName) -> Result<Vec<(RequirementClass, bool)>, StoreError>;

    /// The live leases of a worker, in the order of submission.
    async fn leases_of(&self, worker: &WorkerId) -> Result<Vec<LeaseRecord>, StoreError>;

    /// The live lease of a job.
    async fn lease_of(&self, job: JobId) -> Result<Option<LeaseRecord>, StoreError>;

    /// Records workers, or what is new of them. `jobs_completed` is added to what is recorded.
    async fn put_workers(&self, workers: Vec<WorkerRecord>) -> Result<(), StoreError>;

    /// Workers heard of at or after `since`, by id.
    async fn workers(&self, since: Timestamp) -> Result<Vec<WorkerRecord>, StoreError>;

    /// Appends output of a running attempt. Positions that are there already are passed over. Not necessarily synced when it returns.
    async fn append_output(&self, fence: &Fence, chunk: OutputChunk) -> Result<AppendAnswer, StoreError>;

    /// Reads output records of an attempt from position `offset` on, about `max_bytes` encoded bytes of them and at least one record if any is there.
    /// An attempt without output is an empty, sealed or unsealed slice. `None`: no such attempt. Output of an ended attempt
    /// that was deleted reads as a gap as long as it was.
    async fn output(
        &self,
        job: JobId,
        attempt: u32,
        offset: u64,
        max_bytes: usize,
    ) -> Result<Option<OutputSlice>, StoreError>;

    /// Starts or continues a blob: appends `bytes` at `offset` of an upload named by `upload`. Offset 0 starts it anew; any other must be
    /// where it stands, else [`StoreError::UploadGap`]. See [`finish_blob`](Store::finish_blob).
    async fn append_blob(&self, upload: uuid::Uuid, offset: u64, bytes: Bytes) -> Result<(), StoreError>;

    /// Makes the upload a blob under the digest that its bytes were verified to have by the caller. An existing blob stays and is touched, the upload is dropped.
    /// An upload that isn't `size` long is refused with [`StoreError::UploadGap`]; one that isn't there is as one of length 0, unless
    /// the blob exists.
    async fn finish_blob(&self, upload: uuid::Uuid, digest: Digest, size: u64) -> Result<(), StoreError>;

    /// Forgets an upload.
    async fn drop_blob_upload(&self, upload: uuid::Uuid) -> Result<(), StoreError>;

    /// The size of a blob, and touches it: it is kept for another day.
    async fn touch_blob(&self, digest: Digest) -> Result<Option<u64>, StoreError>;

    /// Up to [`BLOB_CHUNK`] bytes of a blob from `offset` on; empty at its end. `None`: no such blob.
    async fn read_blob(&self, digest: Digest, offset: u64) -> Result<Option<Bytes>, StoreError>;

    /// Deletes blobs that no job names (as `blob:<digest>`) and nobody touched since `before`, and uploads as old. Returns how many of both.
    async fn delete_blobs(&self, before: Timestamp) -> Result<u64, StoreError>;

    /// Records a token.
    async fn put_token(&self, token: TokenRecord) -> Result<(), StoreError>;

    /// The token whose secret has this digest, unless it is revoked or expired.
    async fn token_by_hash(&self, hash: Digest) -> Result<Option<TokenRecord>, StoreError>;

    /// All tokens that are not revoked, expired ones too, in the order (`created_at`, id).
    async fn tokens(&self) -> Result<Vec<TokenRecord>, StoreError>;

    /// Revokes a token. False: there is none (any more).
    async fn revoke_token(&self, id: TokenId) -> Result<bool, StoreError>;

    /// The store's clock.
    async fn now(&self) -> Result<Timestamp, StoreError>;

    /// A cheap proof that it works.
    async fn ping(&self) -> Result<(), StoreError>;

    /// What other coordinators on the same database did, since now. Never brings what this one published. A receiver that lags must
    /// take it that anything may have happened. An embedded store has no others and stays silent.
    fn subscribe(&self) -> broadcast::Receiver<Signal>;

    /// Lets the other coordinators know. Cheap, never waits for the network, may be coalesced. Nothing for an embedded store.
    fn publish(&self, signal: Signal);

    /// Totals since the start, for metrics.
    fn counters(&self) -> StoreCounters;

    /// Its runs; `None` when it keeps none.
    fn runs(&self) -> Option<&dyn RunStore> {
        None
    }
}

/// What one coordinator lets the others on its database know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Jobs became ready in this queue and class.
    Ready(QueueName, RequirementClass),
    /// A running job was asked to stop.
    Cancelling(JobId, WorkerId, RunCancel),
    /// The job became final, or a new attempt of it began.
    Changed(JobId),
    /// Output of the job was appended.
    Output(JobId),
    /// Events of the run were written, or jobs of it are asked about.
    Run(RunId),
    /// Any of these, and any number: something happened that nobody could tell in detail.
    Anything,
}

/// Totals of a store since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreCounters {
    /// Commands carried out.
    pub queries: u64,
    /// Commands that ended with an error.
    pub errors: u64,
    /// Microseconds all commands took together, from call to answer.
    pub query_micros: u64,
    /// Connections open now (1 for an embedded store).
    pub connections: u64,
}
