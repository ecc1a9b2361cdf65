//! Why there is no agent on a host, or no longer: which host, in which phase of getting there, and what to try.

use std::fmt;

use thiserror::Error;

/// How far one gets towards a job on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The client itself, its configuration.
    Client,
    /// From its name to an address.
    Resolve,
    /// To whoever listens there.
    Connect,
    /// Whether it is the host that is known.
    HostKey,
    /// Whether it lets one in.
    Authenticate,
    /// The agent's program, on its disk.
    PlaceAgent,
    /// The agent as a process.
    Start,
    /// Everything after.
    Run,
}

impl Phase {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::HostKey => "host key",
            Self::Authenticate => "authenticate",
            Self::PlaceAgent => "place agent",
            Self::Start => "start",
            Self::Run => "run",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a host doesn't do.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{host}: {phase}: {problem}; {remedy}")]
pub struct SshError {
    /// Which host.
    pub host: String,
    /// How far it went.
    pub phase: Phase,
    /// What went wrong.
    pub problem: String,
    /// What to try.
    pub remedy: String,
}

impl SshError {
    pub(super) fn new(
        host: impl fmt::Display,
        phase: Phase,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { host: host.to_string(), phase, problem: problem.into(), remedy: remedy.into() }
    }
}
