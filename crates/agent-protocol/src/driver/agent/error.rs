//! What can go wrong between a driver and an agent. A task that fails is an event, not one of these.

use std::error::Error as _;
use std::time::Duration;

use tonic::{Code, Status};

use crate::PROTOCOL;

/// The agent can't be used, or what it ran is lost.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// There is no stream to it.
    #[error("the agent can't be reached: {0}; is the place it runs in still there?")]
    Dial(std::io::Error),
    /// What is at the other end of the stream isn't HTTP/2, or it broke.
    #[error("the connection to the agent failed: {0}; see whether something else writes to its stream, and try again")]
    Connection(String),
    /// There is a stream, and nobody answers on it.
    #[error("nobody answers where the agent was to be; see whether its program runs there, and try again")]
    Silent,
    /// It asks for a token that wasn't sent, or another one.
    #[error("{0}")]
    Unauthenticated(String),
    /// A token that can't be sent.
    #[error("the agent's token holds characters that can't be sent; use letters and digits")]
    Token,
    /// It speaks another version of the protocol.
    #[error("the agent speaks version {theirs} of the protocol, not {PROTOCOL}; use the one of the same release")]
    Version {
        /// Which.
        theirs: u32,
    },
    /// It is another program than the one demanded.
    #[error("the agent there is another program (SHA-256 {found}, not {expected}); put the one of this release there")]
    Digest {
        /// What it was to be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// It can't be reached for longer than patience lasts; what it runs it ends itself.
    #[error(
        "the agent was out of reach for {} s: {problem}; what it ran is lost: look after the connection, and repeat it",
        patience.as_secs_f64()
    )]
    Lost {
        /// How long it was waited for.
        patience: Duration,
        /// Why it couldn't be reached in the end.
        problem: String,
    },
    /// Another agent answers in its place.
    #[error("the agent was started anew, and what it ran is lost; repeat it")]
    Restarted,
    /// Another agent answers after another boot.
    #[error("the machine of the agent was started anew, and what ran there is lost; repeat it")]
    Rebooted,
    /// What ran the task there was killed, and the task with it.
    #[error("{0}")]
    TaskLost(String),
    /// It ended the task, since nobody followed it for longer than its patience; or somebody else follows it.
    #[error("{0}")]
    Aborted(String),
    /// It refuses what it was asked.
    #[error("the agent refuses: {0}")]
    Refused(String),
    /// What came isn't the protocol.
    #[error("the agent can't be understood: {0}; use the one of the same release as this program")]
    Protocol(String),
    /// The kernel gives no random number.
    #[error("the system has no randomness: {0}; see its log")]
    Random(std::io::Error),
}

impl AgentError {
    /// What a call's status means. One that the agent itself has set names no source, and has one of the codes it uses.
    pub(super) fn of(status: &Status) -> Self {
        let message = status.message().to_owned();
        if let Some(source) = status.source() {
            return Self::Connection(format!("{message}: {source}"));
        }
        match status.code() {
            Code::Unauthenticated => Self::Unauthenticated(message),
            Code::Aborted => Self::Aborted(message),
            Code::FailedPrecondition
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::ResourceExhausted
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::PermissionDenied => Self::Refused(message),
            _ => Self::Connection(message),
        }
    }

    /// Whether another stream may do.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Dial(_) | Self::Connection(_) | Self::Silent)
    }
}
