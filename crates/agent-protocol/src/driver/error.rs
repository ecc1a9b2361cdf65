//! What can go wrong between a driver and its agent. A task that fails is an event, not one of these.

use std::path::PathBuf;
use std::process::ExitStatus;

use crate::frame::FrameError;

/// The keeper can't be used. After any of these but `TooLong`, [`Keeper::respawn`](super::Keeper::respawn) it.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// Its program couldn't be started.
    #[error("the keeper {program} can't be started: {source}; is the executr program still where it was?")]
    Spawn {
        /// The program that was to be started.
        program: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is gone; whatever it ran was ended by the system or will be by its successor.
    #[error("the keeper ended by itself ({status}); start another one, and repeat what it ran")]
    Died {
        /// How it ended.
        status: ExitStatus,
    },
    /// Nobody answers at the socket of an agent.
    #[error("the agent at {} can't be reached: {source}; is the place it runs in still there?", socket.display())]
    Call {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It was in a place of its own, and is gone.
    #[error("the agent is gone, and what it ran with it; was its container removed, or out of memory?")]
    Lost,
    /// It was told to end a task and says nothing, not even when asked. It was ended, and what it ran will be by its
    /// successor.
    #[error(
        "its keeper stopped answering; start another one, and look whether the job stops processes it didn't start"
    )]
    Silent,
    /// The socket or the wait for its end failed.
    #[error("the connection to the keeper failed: {0}; start another one")]
    Connection(#[from] std::io::Error),
    /// What came isn't the protocol.
    #[error("the keeper can't be understood: {0}; start another one, from the same release as this program")]
    Protocol(String),
    /// The task is too large to be said in one message; the keeper is as it was.
    #[error(transparent)]
    TooLong(FrameError),
}
