//! The side of the API that workers use, and how workers are shown.

use std::collections::BTreeMap;

use async_trait::async_trait;
use executr_spec::{Digest, JobId, Offers, Timestamp, WorkerId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::blobs::ByteStream;
use crate::console::{ConsoleId, ConsoleLine};
use crate::error::{ApiError, ErrorCode};
use crate::exchange::{Fence, Orders, QueueWeight, Report};
use crate::output::OutputChunk;

/// What a worker needs of a coordinator, near or far.
#[async_trait]
pub trait WorkerApi: Send + Sync {
    /// Tells what happened, renews what is held, asks for work; returns when there is something to do, when a later
    /// report of the same worker arrives, or when the wait is over.
    ///
    /// # Errors
    /// `Unavailable` and the like: nothing is known to have happened, so the report is sent again.
    async fn exchange(&self, report: Report) -> Result<Orders, ApiError>;

    /// Appends output. Positions that are there already are passed over. Returns the position after the last that is there.
    ///
    /// # Errors
    /// `LeaseLost`; `OutputGap` when the chunk starts after the end (its context's `end` says where that is).
    async fn append_output(&self, fence: &Fence, token: &str, chunk: OutputChunk) -> Result<u64, ApiError>;

    /// Reads a blob of the server from `offset` on.
    ///
    /// # Errors
    /// `NotFound`.
    async fn blob(&self, digest: Digest, offset: u64, token: &str) -> Result<ByteStream, ApiError>;

    /// Those of these blobs that the server lacks, in the order they were asked about; asking keeps the others for another
    /// day.
    ///
    /// # Errors
    /// `LeaseLost`; `BadRequest` for more than [`MAX_ASKED_BLOBS`](crate::MAX_ASKED_BLOBS).
    async fn missing_blobs(&self, fence: &Fence, token: &str, digests: Vec<Digest>) -> Result<Vec<Digest>, ApiError>;

    /// Stores a blob that the attempt made. `bytes` must hash to `digest`.
    ///
    /// # Errors
    /// `LeaseLost`, also when the lease is lost before the last byte; `BadRequest` when the bytes are others, `TooLarge`.
    async fn put_blob(&self, fence: &Fence, token: &str, digest: Digest, bytes: ByteStream) -> Result<(), ApiError>;

    /// Takes the host's end of a console that was ordered.
    ///
    /// # Errors
    /// `NotFound` when nobody waits for it any more.
    async fn join_console(&self, console: ConsoleId) -> Result<ConsoleLine, ApiError> {
        let _ = console;
        Err(ApiError::new(ErrorCode::NotFound, "there are no consoles here"))
    }
}

/// A worker as `GET /admin/executors` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerView {
    /// The worker.
    pub executor_id: WorkerId,
    /// What its operator calls it.
    pub name: String,
    /// One of the jobs it runs.
    pub current_job_id: Option<JobId>,
    /// That job's type.
    pub job_type: Option<String>,
    /// When it was last heard of.
    pub last_heartbeat: Timestamp,
    /// How many attempts it has finished well.
    pub jobs_completed: u64,
    /// Its program's version; absent for the original's executor.
    pub version: Option<String>,
    /// The address it gave.
    pub ip: Option<String>,
    /// How many jobs it runs at a time.
    pub slots: u32,
    /// How many it has now.
    pub running: u32,
    /// The queues it serves.
    pub queues: Vec<QueueWeight>,
    /// What it offers.
    pub offers: Offers,
    /// Whether it takes no new jobs.
    pub draining: bool,
}

/// What `GET /admin/stats` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatsView {
    /// Jobs in each of the five statuses.
    pub jobs_by_status: BTreeMap<String, u64>,
    /// Pending jobs of each priority.
    pub pending_by_priority: BTreeMap<String, u64>,
    /// Workers heard of lately.
    pub active_executors: u64,
    /// Jobs in each exact state that is not final.
    pub jobs_by_state: BTreeMap<String, u64>,
    /// Pending jobs of each queue.
    pub pending_by_queue: BTreeMap<String, u64>,
}
