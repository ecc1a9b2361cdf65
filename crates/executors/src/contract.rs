//! The executor contract.
//!
//! ```text
//! Executor::setup_workspace → Workspace        once per worker, or per run where a place is made for one
//! Workspace::setup_job      → Sandbox          per attempt
//! Sandbox::act(SetUp)       → Execution        what the place does itself then, if anything; likewise
//! Sandbox::put_tree                            the copy of the repository
//! Sandbox::put_tree, act(Restore)              per input
//! Sandbox::put_files, execute → Execution      per step
//! Sandbox::consoles → Consoles::open           whenever somebody wants to look, beside all of these
//! Sandbox::act(Save), take_tree                per output
//! Sandbox::take_modified                       once, where it is wanted
//! Sandbox::act(CleanUp)                        per attempt, whatever happened
//! Sandbox::cleanup                             per attempt
//! Workspace::cleanup                           at the end
//! ```
//!
//! A setup is finished before the next hook is called. Cleanup is asked for whatever became of the rest, may be asked
//! for again, and then does nothing. A sandbox that is dropped instead ends what it runs at once and leaves its
//! removal to whoever uses the workspace next.
//!
//! A job directory may be anywhere: paths of one mean something to the job's steps, and to nobody else. What goes into it
//! and comes out of it passes through the sandbox. A call that is given up leaves no work behind that a later one could
//! meet: that waits for it.

mod console;

use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use executr_spec::JobId;
use executr_spec::workflow::ModifiedFiles;
use executr_tree::stream::StreamError;
use executr_tree::{
    BlobDir, Changes, LookError, MadeTree, Manifest, MaterialiseError, ModifiedError, OfferedBlob, Packed,
    SnapshotError,
};
use thiserror::Error;
use tokio::sync::mpsc;

use crate::command::CommandError;
use crate::oci::ContainerError;
use crate::ssh::SshError;
pub use console::{Console, ConsolePlan, Consoles, MAX_CONSOLE_INPUT, Terminal};
use executr_agent_protocol::driver::{AgentError, TreeError};
pub use executr_agent_protocol::driver::{
    Ended, Event, Exit, Failure, KeeperError, Limits, Offers as LimitOffers, PeakMemory, StartFailed, StartPhase,
    Stream, Usage,
};

/// A kind of place, configured.
#[async_trait]
pub trait Executor: Send + Sync {
    /// Sets up what jobs share here.
    ///
    /// # Errors
    /// When the place can't be used at all.
    async fn setup_workspace(&self) -> Result<Arc<dyn Workspace>, ExecutorError>;
}

/// What an executor set up for its jobs.
#[async_trait]
pub trait Workspace: Send + Sync {
    /// Which limits can be kept here, found out by trying.
    fn limits(&self) -> &LimitOffers;

    /// Makes room for one attempt. Costs nothing in the place itself yet where that can be had with the first step.
    ///
    /// # Errors
    /// When there is no room, or a limit can't be kept.
    async fn setup_job(&self, job: JobPlan) -> Result<Box<dyn Sandbox>, ExecutorError>;

    /// Lets go of everything. No sandbox may be in use.
    async fn cleanup(&self);
}

/// One attempt's place.
#[async_trait]
pub trait Sandbox: Send {
    /// The job directory, where steps start, as they see it.
    fn directory(&self) -> &Path;

    /// Variables its steps find in the place itself, each `KEY=VALUE`, below all others; `None` where it has none of its
    /// own but this machine's.
    fn variables(&self) -> Option<&[Bytes]> {
        None
    }

    /// Makes the job directory now, if it isn't there yet.
    ///
    /// # Errors
    /// When it can't be made.
    async fn make_directory(&mut self) -> Result<(), ExecutorError>;

    /// Has [`cleanup`](Self::cleanup) put the job directory at `target` on this machine instead of removing it, where it is
    /// this sandbox's own and nobody else decides what becomes of it. To be said before the first step; nothing may stand
    /// at `target`.
    fn keep_directory(&mut self, target: &Path) {
        let _ = target;
    }

    /// Puts a tree into the job. What stands in its way is replaced, and no link on the way is followed.
    ///
    /// # Errors
    /// When it can't be put there, or the place is lost. A part of it may be there.
    async fn put_tree(&mut self, tree: Arc<dyn TreeAtHand>, to: PutTo<'_>) -> Result<(), ExecutorError>;

    /// Puts files into the job directory, each anew: what stands in its place is removed, and no link on the way is
    /// followed.
    ///
    /// # Errors
    /// [`ExecutorError::File`] when one can't be written, or the place is lost.
    async fn put_files(&mut self, files: Vec<FileToPut>) -> Result<(), ExecutorError>;

    /// Makes a tree of what the job has at `from`, offering its blobs as they are found; `None` when nothing is there.
    ///
    /// # Errors
    /// When it can't be read, or the place is lost.
    async fn take_tree(&mut self, from: TakeFrom<'_>, offer: Offer) -> Result<Option<MadeTree>, ExecutorError>;

    /// Notes what the job directory holds now, for [`changes`](Self::changes).
    ///
    /// # Errors
    /// When it can't be looked through, or the place is lost.
    async fn note(&mut self) -> Result<(), ExecutorError>;

    /// What has changed in the job directory since it was noted last, and notes what it holds now.
    ///
    /// # Errors
    /// When it can't be looked through, or the place is lost.
    async fn changes(&mut self) -> Result<Changes, ExecutorError>;

    /// Notes what the job directory holds before its steps, for [`take_modified`](Self::take_modified).
    ///
    /// # Errors
    /// When it can't be looked through, or the place is lost.
    async fn begin_modified(&mut self) -> Result<(), ExecutorError>;

    /// Packs what the steps added, changed and deleted since into a file of this machine. Files that were
    /// [put](Self::put_files) there and are as they were don't count.
    ///
    /// # Errors
    /// When it can't be looked through or packed, or the place is lost.
    async fn take_modified(&mut self, wanted: &ModifiedFiles, into: File) -> Result<Packed, ExecutorError>;

    /// Where steps find a file to hand something over in. Outside the job directory: a step that packs or lists that
    /// doesn't find it there. Nothing is made yet.
    fn handover_path(&mut self, handover: Handover) -> PathBuf;

    /// Takes what the last step handed over, at most `limit` bytes of it and one more; `None` when that was nothing.
    ///
    /// # Errors
    /// When there is something that can't be read.
    async fn take_handover(&mut self, handover: Handover, limit: u64) -> Result<Option<Bytes>, ExecutorError>;

    /// Starts what the place does by itself at this point, to be run like a step; `None` when that is nothing. `env` is what
    /// it may need to know of the attempt, each `KEY=VALUE`.
    ///
    /// # Errors
    /// When the place is lost, or can't do it.
    async fn act(&mut self, act: Act<'_>, env: &[Bytes]) -> Result<Option<Box<dyn Execution + '_>>, ExecutorError> {
        let _ = (act, env);
        Ok(None)
    }

    /// Where in the place itself the last thing it ran failed, in words; `None` when nothing more is known than its end.
    fn take_failure(&mut self) -> Option<String> {
        None
    }

    /// Starts a step; one at a time. That its program can't be started is an event, not an error.
    ///
    /// # Errors
    /// When the place is lost.
    async fn execute(&mut self, step: StepPlan) -> Result<Box<dyn Execution + '_>, ExecutorError>;

    /// What opens consoles here, beside whatever runs; `None` where there can be none.
    fn consoles(&self) -> Option<Arc<dyn Consoles>> {
        None
    }

    /// Removes what the attempt left. No console may be open.
    ///
    /// # Errors
    /// When something stays behind.
    async fn cleanup(&mut self) -> Result<(), ExecutorError>;
}

/// A step that was started. Dropped before its end, it is ended at once.
#[async_trait]
pub trait Execution: Send {
    /// What happens next; `None` after the end. The future may be dropped and asked for again without loss.
    ///
    /// # Errors
    /// When the place is lost, and with it the step.
    async fn next(&mut self) -> Result<Option<Event>, ExecutorError>;

    /// Ends the step's whole process tree: SIGTERM, and SIGKILL to what is left after `grace`. Said again, the shorter
    /// remaining grace counts. The end then comes by [`next`](Self::next).
    ///
    /// # Errors
    /// When the place is lost, and with it the step.
    async fn end(&mut self, grace: Duration) -> Result<(), ExecutorError>;
}

/// An attempt, as far as its place is concerned.
#[derive(Clone, Debug)]
pub struct JobPlan {
    /// The job: names the job directory.
    pub job: JobId,
    /// Which attempt.
    pub attempt: u32,
    /// Where its steps start.
    pub place: Place,
    /// Bounds on the process tree of each step; 0 is no bound.
    pub limits: Limits,
}

/// Where an attempt's steps start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a fresh directory that goes with the attempt.
    Sandbox,
    /// In this one, which was there before and stays.
    Directory(PathBuf),
}

/// A step, as far as its place is concerned.
#[derive(Clone, Debug)]
pub struct StepPlan {
    /// What to run.
    pub program: Program,
    /// The whole environment, each `KEY=VALUE`.
    pub env: Vec<Bytes>,
    /// Where it starts, from the job directory; there itself when `None`. Never leads out of it.
    pub workdir: Option<PathBuf>,
    /// Whether it is the attempt's last, so that its end can take the job directory with it.
    pub last: bool,
}

/// What a place may do by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act<'a> {
    /// Before anything else.
    SetUp,
    /// Gets an artifact into the job, once its tree was put with [`PutTo::Artifact`].
    Restore {
        /// The artifact.
        name: &'a str,
        /// Into which directory, from the job directory; itself when empty.
        path: &'a Path,
    },
    /// Gets an artifact out of the job; its tree is there afterwards.
    Save {
        /// The artifact.
        name: &'a str,
        /// The file or directory, from the job directory.
        path: &'a Path,
    },
    /// After everything else. Does nothing when nothing was begun, or the second time.
    CleanUp,
}

/// A tree whose blobs are all in a directory of this machine, and stay there while this is held.
pub trait TreeAtHand: Send + Sync {
    /// What it is.
    fn manifest(&self) -> &Manifest;

    /// Where its blobs are.
    fn blobs(&self) -> &BlobDir;
}

/// Where a tree goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutTo<'a> {
    /// Into the job directory; where hooks start, into the copy of the repository that they start in.
    JobDirectory,
    /// Into a directory below it, which is made, or, where the place restores artifacts by itself, to where
    /// [`Act::Restore`] finds it.
    Artifact {
        /// The artifact.
        name: &'a str,
        /// The directory, from the job directory; itself when empty.
        path: &'a Path,
    },
}

/// What a tree is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeFrom<'a> {
    /// A file or directory of the job directory, under its own name as `cp -r PATH TREE/` would put it; where the place
    /// saves artifacts by itself, what [`Act::Save`] has put down.
    Artifact {
        /// The artifact.
        name: &'a str,
        /// The file or directory, from the job directory; itself, without a name, when empty.
        path: &'a Path,
    },
}

/// Where blobs are offered to whoever wants them.
pub type Offer = mpsc::UnboundedSender<OfferedBlob>;

/// A file for the job directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileToPut {
    /// Where, from the job directory. Never leads out of it, and isn't empty.
    pub path: PathBuf,
    /// What is in it.
    pub content: Bytes,
    /// Its permissions, exactly.
    pub mode: u32,
}

/// What steps hand over in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handover {
    /// Variables for later steps: `$JOB_ENV`.
    Variables,
    /// What others may know of its results: `$STEP_OUTPUT`.
    Outputs,
}

/// What a step runs.
#[derive(Clone, Debug)]
pub enum Program {
    /// A program where the job is and its arguments. Without a slash it is looked up in the environment's PATH.
    Argv(Vec<Bytes>),
    /// A program of this machine, which is brought to where the job is, and its arguments.
    Brought {
        /// Where it is on this machine; its name says what is in it.
        program: PathBuf,
        /// The arguments.
        args: Vec<Bytes>,
    },
    /// A script for `/bin/sh -e`, or for what its `#!` line names.
    Script(Bytes),
}

/// The words of a program of this machine that the job sees where it is.
pub(crate) fn brought(program: PathBuf, args: Vec<Bytes>) -> Vec<Bytes> {
    let mut words = Vec::with_capacity(args.len() + 1);
    words.push(Bytes::from(program.into_os_string().into_vec()));
    words.extend(args);
    words
}

impl From<TreeError> for ExecutorError {
    fn from(error: TreeError) -> Self {
        match error {
            TreeError::Agent(error) => Self::Remote(error),
            TreeError::There(failure) => Self::There(failure),
            TreeError::Here(StreamError::Place(error)) => Self::Put(error),
            error => Self::Transfer(error.to_string()),
        }
    }
}

impl ExecutorError {
    /// Whether the job has no place any more. Otherwise only what was asked for can't be done.
    #[must_use]
    pub fn is_of_a_lost_place(&self) -> bool {
        !matches!(
            self,
            Self::Put(_) | Self::Take(_) | Self::Look(_) | Self::Pack(_) | Self::File { .. } | Self::There(_)
        )
    }
}

/// Why a place can't be had or is lost. What a job did wrong is an event, not one of these.
#[derive(Debug, Error)]
pub enum ExecutorError {
    /// The agent is lost, with what it ran.
    #[error(transparent)]
    Agent(#[from] KeeperError),
    /// The agent somewhere else is lost, with what it ran.
    #[error(transparent)]
    Remote(#[from] AgentError),
    /// Something can't be done where the agent is.
    #[error("{}", .0.message)]
    There(Failure),
    /// A bound that can't be kept.
    #[error("the limit `{limit}` can't be kept here: {reason}")]
    Limit {
        /// Its name in `resources`.
        limit: &'static str,
        /// Why.
        reason: String,
    },
    /// The directory for jobs doesn't do.
    #[error("cannot use the directory {}: {source}; check that it is writable and has space left", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The directory for jobs is one that others can write to.
    #[error(
        "the directory for jobs {} isn't safe: {problem}; if it is yours, `chmod go-w` it, or name another directory \
         with --work-dir",
        path.display()
    )]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Who can write to it.
        problem: String,
    },
    /// There is no container, or it is lost.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// There is no agent behind an argv, or no longer.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// There is no agent on a host, or no longer.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// Something asked for that the place's scripts don't do.
    #[error("the executor has no hook `{hook}`; write one in its settings")]
    NoHook {
        /// Its name.
        hook: &'static str,
    },
    /// What a step handed over can't be read.
    #[error("cannot read what the step wrote to {}: {source}", path.display())]
    Handover {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A tree doesn't get where it should be.
    #[error("{0}")]
    Transfer(String),
    /// A tree can't be put into the job.
    #[error(transparent)]
    Put(#[from] MaterialiseError),
    /// What the job has can't be made into a tree.
    #[error(transparent)]
    Take(#[from] SnapshotError),
    /// The job directory can't be looked through.
    #[error(transparent)]
    Look(#[from] LookError),
    /// What was changed can't be packed.
    #[error(transparent)]
    Pack(#[from] ModifiedError),
    /// A file can't be put into the job directory.
    #[error("{}: {source}", path.display())]
    File {
        /// From the job directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A thread of this process ended in the middle of its work.
    #[error("a thread of the worker broke off; this is a fault of executr")]
    Broken,
    /// Something of a job couldn't be removed.
    #[error("{0}")]
    Left(Failure),
}
