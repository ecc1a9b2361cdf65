//! What a worker and the coordinator tell each other in one exchange.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use executr_spec::{JobId, LeaseId, Offers, QueueName, SpecJson, WorkerId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::console::ConsoleOrder;
use crate::output::OutputChunk;
use crate::run::{Artifact, RunContext, WorkspaceId};
use crate::version::Version;

/// Under which lease something is sent: results, output and artifacts are taken only while it is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Fence {
    /// The job.
    pub job: JobId,
    /// The attempt, counted from 1.
    pub attempt: u32,
    /// The lease.
    pub lease: LeaseId,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job {} attempt {}", self.job, self.attempt)
    }
}

/// A queue that a worker serves, and how large a share of its slots it gets when several have jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QueueWeight {
    /// The queue.
    pub queue: QueueName,
    /// Its weight, at least 1.
    pub weight: u32,
}

/// Who a worker is and what it offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerHello {
    /// `{name}-{unique suffix}`, new at every start.
    pub id: WorkerId,
    /// What its operator calls it.
    pub name: String,
    /// The address by which it knows itself, if any.
    pub ip: Option<String>,
    /// Its program's version.
    pub version: Version,
    /// How many jobs it runs at a time.
    pub slots: u32,
    /// The queues it serves; never empty.
    pub queues: Vec<QueueWeight>,
    /// What it can and may run.
    pub offers: Offers,
}

/// Running totals of one worker process since its start; the coordinator adds what is new to its metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct WorkerCounters {
    /// Binaries found in the cache.
    pub cache_hits: u64,
    /// Binaries that had to be downloaded.
    pub cache_misses: u64,
    /// Bytes the cache holds now.
    pub cache_bytes: u64,
    /// Downloads finished.
    pub downloads: u64,
    /// Microseconds that all downloads took together.
    pub download_micros: u64,
}

/// What a worker tells. One call finishes, beats and asks for work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Report {
    /// Who it is.
    pub worker: WorkerHello,
    /// Counted up by the worker with each report. A report makes every earlier open exchange of the worker return at once.
    pub sequence: u64,
    /// The leases it holds and has not finished: each is renewed.
    pub held: Vec<Fence>,
    /// Attempts that ended. Sent again until a verdict has come.
    pub finished: Vec<AttemptResult>,
    /// Leases given back unstarted.
    pub returned: Vec<Fence>,
    /// Workspaces it has cleaned up. Sent until an exchange with them was answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cleaned: Vec<WorkspaceId>,
    /// True when it takes no new jobs: it is stopping.
    pub draining: bool,
    /// How long the coordinator may hold the exchange open when it has nothing to say, in milliseconds. It may choose less.
    pub wait_ms: u64,
    /// Its totals.
    pub counters: WorkerCounters,
}

/// A worker's right to an attempt, and what to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Lease {
    /// What to send with everything that concerns the attempt.
    pub fence: Fence,
    /// The job.
    #[schema(value_type = executr_spec::JobSpec)]
    pub spec: SpecJson,
    /// Opens this job's output, files and artifacts, nothing else. Empty when the server asks for no tokens.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub token: String,
    /// Of a job of a run: what it has of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Box<RunContext>>,
}

/// Whether a result was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is recorded (now or by an earlier report).
    Accepted,
    /// Another worker has the job, or it is final: drop the result.
    LeaseLost,
}

/// The verdict on one result or returned lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResultVerdict {
    /// Which.
    pub fence: Fence,
    /// What became of it.
    pub verdict: Verdict,
}

/// What the coordinator answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Orders {
    /// Attempts to run. The same lease may come twice (an answer can be lost): a worker starts each once.
    pub leases: Vec<Lease>,
    /// Attempts to end; their results are still to be reported.
    pub cancels: Vec<Fence>,
    /// Those of them that are to end at once: steps meant for a cancellation don't run, and processes get no time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub at_once: Vec<Fence>,
    /// Leases that are no longer the worker's: end these attempts and forget them.
    pub releases: Vec<Fence>,
    /// Verdicts on what the report brought.
    pub verdicts: Vec<ResultVerdict>,
    /// Workspaces whose runs need them no more: clean them up, then say so in `cleaned`.
    pub workspaces: Vec<WorkspaceId>,
    /// Consoles that somebody wants in jobs of its. The same may come twice: it is served once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consoles: Vec<ConsoleOrder>,
    /// Take no new jobs, finish the running ones and exit.
    pub drain: bool,
    /// How long a lease lasts without renewal, in milliseconds.
    pub lease_ms: u64,
}

impl Orders {
    /// Whether there is anything in it that a worker should know at once.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
            && self.cancels.is_empty()
            && self.releases.is_empty()
            && self.verdicts.is_empty()
            && self.workspaces.is_empty()
            && self.consoles.is_empty()
            && !self.drain
    }
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every step ended with exit code 0.
    Succeeded,
    /// A step failed, ran out of time, or could not be started.
    Failed,
    /// Ended because the coordinator asked for it.
    Cancelled,
    /// The job's own condition said no; nothing else was started.
    Skipped,
}

/// From where a peak of memory is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemorySource {
    /// The whole tree together, from its memory cgroup.
    Cgroup,
    /// The largest single process of the tree: the machine offers no more.
    LargestProcess,
}

/// What a process tree used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// Processor time in user mode, all processes of the tree, in microseconds.
    pub user_us: u64,
    /// Processor time in the kernel, likewise.
    pub system_us: u64,
    /// Peak of memory in bytes.
    pub peak_memory_bytes: u64,
    /// Of what it is the peak.
    pub peak_memory_source: MemorySource,
}

impl Usage {
    /// The use of two trees that ran one after another.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        let larger = if next.peak_memory_bytes > self.peak_memory_bytes { next } else { self };
        Self {
            user_us: self.user_us.saturating_add(next.user_us),
            system_us: self.system_us.saturating_add(next.system_us),
            ..larger
        }
    }
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepOutcome {
    /// Exit code 0.
    Succeeded,
    /// Another exit code, a signal, or it could not be started.
    Failed,
    /// Its time, or the job's, was over.
    TimedOut,
    /// Ended by request.
    Cancelled,
    /// Not started: its condition said no; without one, an earlier step failed.
    Skipped,
}

/// What became of one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepResult {
    /// Its name, else its number counted from 1.
    pub name: String,
    /// How it ended.
    pub outcome: StepOutcome,
    /// Its exit code; 128 + n when signal n ended it.
    pub exit_code: Option<i32>,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

/// The end of an attempt, as its worker reports it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AttemptResult {
    /// Under which lease.
    pub fence: Fence,
    /// How it ended.
    pub outcome: Outcome,
    /// The exit code of the step that decided it; 128 + n when signal n ended that step.
    pub exit_code: Option<i32>,
    /// Why it failed, for people.
    pub error_message: Option<String>,
    /// False when another attempt can't end better (the job's own fault found before it ran); such a failure is final.
    pub retryable: bool,
    /// A failure that is the whole run's: something that all its jobs start from can't be had. Neither `continue_on_error` nor a
    /// run without `fail_fast` takes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fails_run: bool,
    /// What it used.
    pub usage: Option<Usage>,
    /// How each step ended; left out for a single step that ran, of which the attempt says the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepResult>,
    /// The last of its output, when it wasn't appended before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputChunk>,
    /// How many bytes of output there are in all.
    pub output_bytes: u64,
    /// From start to end by the worker's clock, in microseconds.
    pub duration_us: u64,
    /// What its steps handed on to the jobs that need this one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, String>,
    /// The artifacts it saved; their blobs are at the coordinator.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
}

impl AttemptResult {
    /// How long the attempt ran by the worker's clock.
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_micros(self.duration_us)
    }
}
