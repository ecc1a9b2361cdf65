//! What a task's caller learns, as types that can't be half filled.

use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use crate::v1;

/// What happens to a task, in this order: `Started`, any number of `Output` and `InputTaken`, `Ended`; or `StartFailed` alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The program runs.
    Started {
        /// Its process id on the agent's machine.
        pid: u32,
    },
    /// Bytes it wrote.
    Output {
        /// Where to.
        stream: Stream,
        /// Bytes of this stream before these.
        offset: u64,
        /// The bytes, never empty. They share the buffer they were read into (up to 128 KiB): copy what is to be kept.
        data: Bytes,
    },
    /// More of its standard input was taken, or nobody will read it: there is room for more.
    InputTaken {
        /// Bytes since the start.
        offset: u64,
    },
    /// No process of it is left, and all output was seen.
    Ended(Ended),
    /// Nothing runs.
    StartFailed(StartFailed),
}

/// One of a task's two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// How its first process ended.
    pub exit: Exit,
    /// What the whole tree used.
    pub usage: Usage,
    /// The kernel killed something in the tree because the memory limit was reached.
    pub oom_killed: bool,
    /// Why the directory couldn't be removed, when it was asked for.
    pub removal_failure: Option<Failure>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exit {
    /// By itself, with this code (0 to 255).
    Code(i32),
    /// By this signal's number.
    Signal(i32),
}

/// What a task's whole tree used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Processor time in user mode.
    pub user: Duration,
    /// Processor time in the kernel.
    pub system: Duration,
    /// Largest amount of memory held, in bytes.
    pub peak_memory: u64,
    /// What `peak_memory` was measured on.
    pub peak_memory_of: PeakMemory,
}

/// What peak memory was measured on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PeakMemory {
    /// The whole tree together, by its memory control group.
    Tree,
    /// The largest single process of the tree. Never less than what the agent itself takes (a few MiB).
    #[default]
    LargestProcess,
}

/// Why a task couldn't be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartFailed {
    /// What the agent was doing.
    pub phase: StartPhase,
    /// Why.
    pub failure: Failure,
    /// Why the directory couldn't be removed, when it was asked for.
    pub removal_failure: Option<Failure>,
}

/// The step of a start that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StartPhase {
    /// The request itself.
    Request,
    /// Making the directory.
    Directory,
    /// Writing a file.
    File,
    /// Setting the limits.
    Limits,
    /// Making the pipes for output.
    Pipes,
    /// Making the process.
    Process,
    /// Going to the directory.
    Chdir,
    /// Executing the program.
    Exec,
    /// Finding out who is to run it, or becoming that user.
    User,
}

/// An error on the agent's side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The error number, or 0 when it wasn't the kernel that refused.
    pub errno: i32,
    /// What happened and what to do, for people.
    pub message: String,
    /// The path concerned; may be empty.
    pub path: PathBuf,
}

/// Which limits a keeper's machine can enforce, or why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offers {
    /// `Limits::memory_bytes`.
    pub memory: Result<(), String>,
    /// `Limits::cpu_millis`.
    pub cpu: Result<(), String>,
    /// `Limits::pids`.
    pub pids: Result<(), String>,
}

impl From<v1::Offers> for Offers {
    fn from(wire: v1::Offers) -> Self {
        let offer = |refused: Option<String>| refused.map_or(Ok(()), Err);
        Self { memory: offer(wire.no_memory), cpu: offer(wire.no_cpu), pids: offer(wire.no_pids) }
    }
}

impl From<v1::Failure> for Failure {
    fn from(wire: v1::Failure) -> Self {
        Self { errno: wire.errno, message: wire.message, path: std::ffi::OsString::from_vec(wire.path.into()).into() }
    }
}

impl From<v1::Usage> for Usage {
    fn from(wire: v1::Usage) -> Self {
        Self {
            user: Duration::from_micros(wire.user_us),
            system: Duration::from_micros(wire.system_us),
            peak_memory: wire.peak_memory_bytes,
            peak_memory_of: match wire.peak_memory_source() {
                v1::PeakMemorySource::Cgroup => PeakMemory::Tree,
                v1::PeakMemorySource::LargestProcess | v1::PeakMemorySource::Unspecified => PeakMemory::LargestProcess,
            },
        }
    }
}

impl Event {
    pub(super) fn of_output(wire: v1::TaskOutput) -> Result<Self, String> {
        let stream = match wire.stream() {
            v1::Stream::Stdout => Stream::Stdout,
            v1::Stream::Stderr => Stream::Stderr,
            v1::Stream::Unspecified => return Err("output of no stream".into()),
        };
        Ok(Event::Output { stream, offset: wire.offset, data: wire.data })
    }
}

impl Event {
    pub(super) fn of_result(wire: v1::TaskResult) -> Result<Self, Unclear> {
        let removal_failure = wire.removal_failure.map(Into::into);
        let exit = match wire.outcome {
            Some(v1::task_result::Outcome::ExitCode(code)) => Exit::Code(code),
            Some(v1::task_result::Outcome::Signal(signal)) => Exit::Signal(signal),
            Some(v1::task_result::Outcome::StartFailed(failed)) => {
                let phase =
                    phase(failed.phase()).ok_or_else(|| Unclear::No("a failed start without a phase".into()))?;
                let failure = failed.failure.unwrap_or_default().into();
                return Ok(Event::StartFailed(StartFailed { phase, failure, removal_failure }));
            }
            Some(v1::task_result::Outcome::Lost(why)) => return Err(Unclear::Lost(why)),
            None => return Err(Unclear::No("an end without an outcome".into())),
        };
        let usage = wire.usage.unwrap_or_default().into();
        Ok(Event::Ended(Ended { exit, usage, oom_killed: wire.oom_killed, removal_failure }))
    }
}

/// A result that isn't an end.
#[derive(Debug)]
pub(super) enum Unclear {
    /// What ran the task was killed.
    Lost(String),
    /// It isn't one of this protocol.
    No(String),
}

fn phase(wire: v1::StartPhase) -> Option<StartPhase> {
    Some(match wire {
        v1::StartPhase::Request => StartPhase::Request,
        v1::StartPhase::Directory => StartPhase::Directory,
        v1::StartPhase::File => StartPhase::File,
        v1::StartPhase::Limits => StartPhase::Limits,
        v1::StartPhase::Pipes => StartPhase::Pipes,
        v1::StartPhase::Process => StartPhase::Process,
        v1::StartPhase::Chdir => StartPhase::Chdir,
        v1::StartPhase::Exec => StartPhase::Exec,
        v1::StartPhase::User => StartPhase::User,
        v1::StartPhase::Unspecified => return None,
    })
}
