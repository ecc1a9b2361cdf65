//! What both sides of the wire share: requests, answers, errors, and the traits [`Client`], [`RunClient`] and
//! [`WorkerApi`].
//!
//! The coordinator implements both traits in its own process, the client crate implements them over HTTP: there is one
//! path, near or far. Types here are what JSON shows, and how long who calls in vain waits; nothing here does I/O.

pub mod console;
pub mod failpoint;
pub mod output;

mod blobs;
mod client;
mod error;
mod exchange;
mod job;
mod retry_delay;
mod run;
mod run_client;
mod submission;
mod token;
mod version;
mod worker;

pub use blobs::{BlobList, ByteStream, MAX_ASKED_BLOBS};
pub use client::{CancelWait, Client, JobQuery, OutputEvent, OutputFollow, OutputStream};
pub use error::{ApiError, ErrorCode};
pub use exchange::{
    AttemptResult, Fence, Lease, MemorySource, Orders, Outcome, QueueWeight, Report, ResultVerdict, StepOutcome,
    StepResult, Usage, Verdict, WorkerCounters, WorkerHello,
};
pub use job::{AttemptStatus, AttemptView, BulkCancelAnswer, JobRun, JobState, JobStatus, JobView, SubmittedJob};
pub use retry_delay::RetryDelay;
pub use run::{
    Artifact, ArtifactQuery, ArtifactView, Need, NeedResult, RerunScope, RunCancel, RunContext, RunEvent,
    RunEventFollow, RunEventKind, RunJobView, RunQuery, RunState, RunSubmission, RunView, StepEvent, StepMark,
    WorkspaceId, WorkspaceJob, WorkspaceLease,
};
pub use run_client::{RunClient, RunEventStream};
pub use submission::Submission;
pub use token::{CreateToken, NewToken, Role, TokenView};
pub use version::{CompatibilityError, Version};
pub use worker::{StatsView, WorkerApi, WorkerView};
