//! The side of the API that people and their programs use.

use std::time::Duration;

use async_trait::async_trait;
use executr_spec::{Digest, JobId, JobType, Priority, QueueName, TokenId};
use futures_util::stream::BoxStream;

use crate::blobs::ByteStream;
use crate::console::ConsoleLine;
use crate::error::ApiError;
use crate::job::{BulkCancelAnswer, JobStatus, JobView, SubmittedJob};
use crate::output::OutputChunk;
use crate::submission::Submission;
use crate::token::{CreateToken, NewToken, TokenView};
use crate::worker::{StatsView, WorkerView};

/// Which jobs to list; the newest come first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobQuery {
    /// Only those with this status.
    pub status: Option<JobStatus>,
    /// Only those of this type.
    pub job_type: Option<JobType>,
    /// Only those of this priority.
    pub priority: Option<Priority>,
    /// Only those of this queue.
    pub queue: Option<QueueName>,
    /// At most so many; 100 when absent, 1000 at most.
    pub limit: Option<u32>,
    /// Pass over so many.
    pub offset: u64,
    /// Only those submitted before this one: flat-cost paging.
    pub before: Option<JobId>,
}

/// How long a cancellation waits for the process tree to be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelWait {
    /// Return as soon as it is asked for.
    No,
    /// At most so long; what is returned then shows whether it is over.
    AtMost(Duration),
}

/// Which output to read, and for how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputFollow {
    /// The attempt; when absent the last one, and with `follow` also those that come after it.
    pub attempt: Option<u32>,
    /// From this position of the (first) attempt's output on.
    pub offset: u64,
    /// Go on until the job is final.
    pub follow: bool,
}

/// What an output stream brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputEvent {
    /// The output of this attempt follows.
    Attempt(u32),
    /// The next records of the attempt last named.
    Chunk(OutputChunk),
    /// There is no more: the job stands so.
    End(JobStatus),
}

/// Output as it appears; ends after [`OutputEvent::End`] or the first error.
pub type OutputStream = BoxStream<'static, Result<OutputEvent, ApiError>>;

/// What users can ask of a coordinator, near or far.
#[async_trait]
pub trait Client: Send + Sync {
    /// Submits a job. When this returns the job is on disk.
    ///
    /// # Errors
    /// `BadRequest` naming the field, `TooMany` …
    async fn submit(&self, job: Submission) -> Result<JobView, ApiError>;

    /// Submits jobs: all or none.
    ///
    /// # Errors
    /// As [`submit`](Self::submit); the context's `index` says which.
    async fn submit_bulk(&self, jobs: Vec<Submission>) -> Result<Vec<SubmittedJob>, ApiError>;

    /// One job with its attempts and its (shortened) output.
    ///
    /// # Errors
    /// `NotFound`.
    async fn job(&self, id: JobId) -> Result<JobView, ApiError>;

    /// Jobs, newest first, without output.
    ///
    /// # Errors
    /// `BadRequest` for a limit over 1000.
    async fn jobs(&self, query: JobQuery) -> Result<Vec<JobView>, ApiError>;

    /// Waits until the job is final, at most `timeout`; returns how it stands then.
    ///
    /// # Errors
    /// `NotFound`.
    async fn wait(&self, id: JobId, timeout: Duration) -> Result<JobView, ApiError>;

    /// Cancels a job, running or not. An ended job stays as it is and is returned so.
    ///
    /// # Errors
    /// `NotFound`.
    async fn cancel(&self, id: JobId, wait: CancelWait) -> Result<JobView, ApiError>;

    /// The original's `DELETE`: cancels a job that is still pending, else refuses.
    ///
    /// # Errors
    /// `BadRequest` when it is not pending, `NotFound`.
    async fn cancel_pending(&self, id: JobId) -> Result<(), ApiError>;

    /// The original's bulk cancel: those that are pending are cancelled, the others counted as failed.
    ///
    /// # Errors
    /// Only when nothing could be done at all.
    async fn cancel_bulk(&self, ids: Vec<JobId>) -> Result<BulkCancelAnswer, ApiError>;

    /// A job's output, from any position, live if asked.
    ///
    /// # Errors
    /// `NotFound`.
    async fn output(&self, id: JobId, follow: OutputFollow) -> Result<OutputStream, ApiError>;

    /// A line to the worker that runs this job, for a command beside the job's steps: the first frame asks for it.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when the job isn't running, or where it runs there are no consoles; `Unavailable` when its
    /// worker can't be reached.
    async fn console(&self, id: JobId) -> Result<ConsoleLine, ApiError>;

    /// Counts over all jobs.
    ///
    /// # Errors
    /// Only when the server can't answer.
    async fn stats(&self) -> Result<StatsView, ApiError>;

    /// The workers heard of lately.
    ///
    /// # Errors
    /// Only when the server can't answer.
    async fn workers(&self) -> Result<Vec<WorkerView>, ApiError>;

    /// Whether the server has this blob; asking keeps it for another day.
    ///
    /// # Errors
    /// Only when the server can't answer.
    async fn has_blob(&self, digest: Digest) -> Result<bool, ApiError>;

    /// Those of these blobs that the server lacks, in the order they were asked about; asking keeps the others for another
    /// day.
    ///
    /// # Errors
    /// `BadRequest` for more than [`MAX_ASKED_BLOBS`](crate::MAX_ASKED_BLOBS).
    async fn missing_blobs(&self, digests: Vec<Digest>) -> Result<Vec<Digest>, ApiError>;

    /// Reads a blob from `offset` on.
    ///
    /// # Errors
    /// `NotFound`.
    async fn read_blob(&self, digest: Digest, offset: u64) -> Result<ByteStream, ApiError>;

    /// Stores a blob. `bytes` must hash to `digest`.
    ///
    /// # Errors
    /// `BadRequest` when they don't, `TooLarge`.
    async fn put_blob(&self, digest: Digest, bytes: ByteStream) -> Result<(), ApiError>;

    /// Makes an access token.
    ///
    /// # Errors
    /// `Forbidden`.
    async fn create_token(&self, token: CreateToken) -> Result<NewToken, ApiError>;

    /// All access tokens, without their secrets.
    ///
    /// # Errors
    /// `Forbidden`.
    async fn tokens(&self) -> Result<Vec<TokenView>, ApiError>;

    /// Makes a token invalid.
    ///
    /// # Errors
    /// `NotFound`.
    async fn revoke_token(&self, id: TokenId) -> Result<(), ApiError>;
}
