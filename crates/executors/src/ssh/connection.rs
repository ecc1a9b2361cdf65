//! A connection to a host, with the agent at its other end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use executr_agent_protocol::driver::{Agent, AgentError, AgentOptions, Dial, StartTask};
use executr_tree::BlobDir;

use super::dial::{SshDial, There};
use super::error::{Phase, SshError};
use super::notes::Note;
use crate::contract::Workspace;
use crate::remote::RemoteWorkspace;

/// How long a host may be out of reach before what runs there is given up.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// How much longer than that its agent waits without a caller.
pub(super) const LONGER: Duration = Duration::from_secs(15);

/// How long an agent may take to hear that nobody calls any more. It finds out by itself, too.
const LEAVING: Duration = Duration::from_secs(3);

/// An agent of a host, and the way there. Others may use it at the same time.
pub(super) struct Connection {
    agent: Agent,
    dial: Arc<SshDial>,
    /// Where what is ours is on the host.
    root: PathBuf,
    variables: Vec<Bytes>,
    place: RemoteWorkspace,
    lost: AtomicBool,
    /// That something is there to be removed.
    note: Option<Note>,
}

impl Connection {
    /// Gets there, by way of all phases. What comes back is kept in `blobs`, on this machine, as long as it is wanted.
    pub(super) async fn open(dial: SshDial, note: Option<Note>, blobs: BlobDir) -> Result<Self, SshError> {
        let dial = Arc::new(dial);
        let options = AgentOptions { patience: PATIENCE, ..AgentOptions::default() };
        let connected = Agent::connect(Arc::clone(&dial) as Arc<dyn Dial>, options).await;
        let (agent, There { place: root, variables }) = match (connected, dial.there()) {
            (Ok(agent), Some(there)) => (agent, there),
            (connected, _) => {
                let error = dial.take_failure().unwrap_or_else(|| {
                    let problem = connected.err().map_or_else(String::new, |error| error.to_string());
                    SshError::new(&dial.target, Phase::Start, problem, format!("try `{}`", dial.target.command()))
                });
                dial.close().await;
                // Nothing of ours is there where nobody got that far; an agent that was started unheard goes by itself.
                if dial.there().is_none()
                    && let Some(note) = note
                {
                    note.remove();
                }
                return Err(error);
            }
        };
        match RemoteWorkspace::open(agent.clone(), root.join("jobs"), blobs).await {
            Ok(place) => {
                let lost = AtomicBool::new(false);
                Ok(Self { agent, dial, root, variables, place, lost, note })
            }
            Err(error) => {
                dial.close().await;
                Err(SshError::new(&dial.target, Phase::Start, error.to_string(), "make room there, and try again"))
            }
        }
    }

    pub(super) fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Where what is ours is on the host.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// What whoever logs in has in his environment, as far as jobs have it, too.
    pub(super) fn variables(&self) -> &[Bytes] {
        &self.variables
    }

    /// Where jobs have their directories.
    pub(super) fn place(&self) -> &RemoteWorkspace {
        &self.place
    }

    /// Whether another one is needed.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// What an error in the middle of things means, by the host's name.
    pub(super) fn explain(&self, error: &AgentError) -> SshError {
        let (is_lost, problem, remedy) = match error {
            AgentError::Rebooted => (true, "the host was started anew in the middle of it".to_owned(), "run it again"),
            AgentError::Restarted => (
                true,
                "the agent there was ended in the middle of it".to_owned(),
                "run it again; a host may end what a user left running when he logs out (`loginctl enable-linger`)",
            ),
            AgentError::Lost { patience, .. } => {
                let failure = self.dial.take_failure();
                let why = failure.map_or_else(String::new, |error| format!(" ({}: {})", error.phase, error.problem));
                let seconds = patience.as_secs();
                let problem = format!("the host was out of reach for {seconds} s{why}");
                (true, problem, "see whether it is up, and run it again")
            }
            AgentError::Dial(_) | AgentError::Connection(_) | AgentError::Silent => {
                (true, error.to_string(), "see whether the host is up, and run it again")
            }
            _ => (false, error.to_string(), "run it again"),
        };
        if is_lost {
            self.lost.store(true, Ordering::Relaxed);
        }
        SshError::new(&self.dial.target, Phase::Run, problem, remedy)
    }

    /// Lets go of it: its agent removes what it has there and ends, and the connection is ended.
    pub(super) async fn close(mut self) {
        if !self.is_lost() {
            match tokio::time::timeout(LEAVING, self.leave()).await {
                Ok(Ok(())) => {
                    if let Some(note) = self.note.take() {
                        note.remove();
                    }
                }
                Ok(Err(error)) => {
                    tracing::debug!(host = %self.dial.target, %error, "the agent wasn't told to leave")
                }
                Err(_) => tracing::debug!(host = %self.dial.target, "the agent didn't hear that it may leave"),
            }
        }
        self.place.cleanup().await;
        let Self { agent, dial, .. } = self;
        drop(agent);
        dial.close().await;
    }

    async fn leave(&self) -> Result<(), AgentError> {
        // Two above its directory, as `script` has it.
        let root = self.root.ancestors().nth(2).unwrap_or(Path::new("/"));
        let program = root.join("agent").join(&self.dial.agent.digest);
        let word = |path: &Path| Bytes::copy_from_slice(path.as_os_str().as_encoded_bytes());
        let process = self.agent.facts().pid.to_string();
        let argv = vec![word(&program), Bytes::from_static(b"leave"), process.into()];
        let task = StartTask { argv, directory: word(Path::new("/")), ..StartTask::default() };
        let mut task = self.agent.start(task).await?;
        while task.next().await?.is_some() {}
        Ok(())
    }
}
