//! The keeper: the agent as a worker's child on the same machine.
//!
//! - `control`: the socket to the driver, as frames in and frames out;
//! - `event_loop`: what is waited for, and in which order what happened is dealt with;
//! - `task`: the one task there is at a time: its output, its children's ends, its usage;
//! - `streams`: its pipes, or its terminal;
//! - `input`: its standard input, and what waits to be taken;
//! - `ending`: how a tree is ended.
//!
//! It is single-threaded, the subreaper of all it starts, and the only one here to wait for children. A task is
//! over when `wait4` says that there is no child left: a fact of the kernel, not a guess from a list.

mod control;
mod ending;
mod event_loop;
mod input;
mod streams;
mod task;

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use executr_agent_protocol::frame::FrameError;
use rustix::io::Errno;

use crate::host::HostFault;

/// Why a keeper gave up. Its tasks are ended all the same.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The system refused something a keeper can't do without.
    #[error("{what}: {source}; see the system's limits on processes and open files")]
    System {
        /// What was asked of it.
        what: &'static str,
        /// What it said.
        source: Errno,
    },
    /// The driver that a program is to be connected to isn't there.
    #[error("the socket {} can't be reached: {source}; is the worker still running?", socket.display())]
    Unreachable {
        /// Where it was to be.
        socket: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program that is to start an agent can't be started itself.
    #[error("`{program}` can't be started: {source}; install it on the worker's machine, or write its whole path")]
    Exec {
        /// Its first word.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Something a container needs can't be had.
    #[error("cannot {what}: {source}")]
    Stage {
        /// What was to be done.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// It was started with other arguments than it has.
    #[error("{0}; see docs/agent.md for what it can be told")]
    Usage(String),
    /// A host that it was sent to doesn't do.
    #[error(transparent)]
    Host(#[from] HostFault),
    /// The driver can't be understood.
    #[error("the driver can't be understood: {0}; an agent is started by executr itself, not by hand")]
    Protocol(String),
}

impl From<FrameError> for Fault {
    fn from(error: FrameError) -> Self {
        Fault::Protocol(error.to_string())
    }
}

impl Fault {
    pub(crate) fn system(what: &'static str) -> impl FnOnce(Errno) -> Fault {
        move |source| Fault::System { what, source }
    }
}

/// Serves the driver at the other end of `control` until it closes; then ends what runs, and returns. To be called
/// first thing in a process, before any thread is started: it takes over descriptors 0 and 1, signals, children
/// and the session of the process.
///
/// # Errors
/// When the system or the driver makes it impossible to go on. What ran is ended then, too.
pub fn run(control: OwnedFd) -> Result<(), Fault> {
    let control = event_loop::prepare_process(control)?;
    event_loop::Keeper::new(control)?.serve()
}
