//! The way to a host's agent: a session of the client that becomes its stream, over a connection of its own.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use executr_agent_protocol::driver::{Dial, Duplex};

use super::agent_copy::{AgentCopy, MACHINE, SYSTEM};
use super::client::Client;
use super::error::{Phase, SshError};
use super::preamble::Mark;
use super::script::{self, Directories};
use super::session::{Session, SshStream};
use super::target::Target;

/// How long the client may take to end a connection.
const ENDING: Duration = Duration::from_secs(5);

/// A way to one host's agent, which stays the same however often it is called.
pub(super) struct SshDial {
    pub(super) client: Client,
    pub(super) target: Target,
    pub(super) agent: AgentCopy,
    /// Where connections have their sockets.
    pub(super) control: Arc<ControlDirectory>,
    /// What the agent calls what is ours there.
    pub(super) id: String,
    /// How long the agent stays without a caller.
    pub(super) patience: Duration,
    state: tokio::sync::Mutex<State>,
    there: OnceLock<There>,
    /// Why it couldn't be called last.
    failure: Mutex<Option<SshError>>,
}

/// What a host says of itself.
#[derive(Clone, Debug)]
pub(super) struct There {
    /// Where what is ours is.
    pub(super) place: PathBuf,
    /// What whoever logs in finds in his environment, as far as jobs have it, too: each `KEY=VALUE`.
    pub(super) variables: Vec<Bytes>,
}

#[derive(Default)]
struct State {
    /// The sockets of connections that were made, the last one in use.
    sockets: VecDeque<PathBuf>,
}

/// A directory for sockets of connections, under a path that is short enough for one.
pub(super) struct ControlDirectory {
    /// As the client sees it.
    path: PathBuf,
    made: AtomicU32,
}

impl ControlDirectory {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, made: AtomicU32::new(0) }
    }

    /// A name that was never used.
    pub(super) fn next(&self) -> PathBuf {
        self.path.join(format!("c{}", self.made.fetch_add(1, Ordering::Relaxed)))
    }
}

impl SshDial {
    pub(super) fn new(
        client: Client,
        target: Target,
        agent: AgentCopy,
        control: Arc<ControlDirectory>,
        id: String,
        patience: Duration,
    ) -> Self {
        let (there, failure) = (OnceLock::new(), Mutex::default());
        Self { client, target, agent, control, id, patience, state: tokio::sync::Mutex::default(), there, failure }
    }

    /// What the host says of itself, once it was called.
    pub(super) fn there(&self) -> Option<There> {
        self.there.get().cloned()
    }

    /// Why it couldn't be called last.
    pub(super) fn take_failure(&self) -> Option<SshError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn directories(&self) -> Result<Directories, SshError> {
        Directories::of(self.target.directory.as_deref()).ok_or_else(|| {
            let said = self.target.directory.as_deref().unwrap_or_default().escape_debug().to_string();
            SshError::new(
                &self.target,
                Phase::PlaceAgent,
                format!("`workspace_dir` is `{said}`"),
                "write an absolute path, or one that begins with `~/`, of letters, digits, spaces and /._-+@%,:=~",
            )
        })
    }

    /// A session over the connection of `control`.
    fn session(&self, control: &std::path::Path, command: &str) -> Result<Session, SshError> {
        Session::start(&self.client, control, &self.target, command)
    }

    /// A stream to the agent, which is sent there if it has to be.
    async fn call(&self) -> Result<SshStream, SshError> {
        let directories = self.directories()?;
        let mut state = self.state.lock().await;
        // The stream of an earlier one broke; whether its connection still does nobody knows.
        self.end(&mut state).await;
        let control = self.control.next();
        state.sockets.push_back(control.clone());
        let reach = script::reach(&directories, &self.agent.digest, &self.id, self.patience.as_secs());
        let mut session = self.session(&control, &reach)?;
        let mut mark = session.mark(Phase::Start).await?;
        if mark.word == "missing" {
            drop(session);
            self.place_agent(&control, &directories, &mark.rest).await?;
            session = self.session(&control, &reach)?;
            mark = session.mark(Phase::Start).await?;
        }
        match mark.word.as_str() {
            "at" => {
                // The same each time, unless the host's directories have become others.
                let mut lines = mark.rest.lines();
                let place = PathBuf::from(lines.next().unwrap_or_default());
                let variables = lines.map(|line| Bytes::copy_from_slice(line.as_bytes())).collect();
                let _ = self.there.set(There { place, variables });
                Ok(session.into_stream())
            }
            "failed" => Err(self.told(Phase::Start, mark.rest, "see whether the user may start processes there")),
            _ => Err(self.strange(&mark)),
        }
    }

    /// Sends the agent to a host of which `uname` says `machine`.
    async fn place_agent(
        &self,
        control: &std::path::Path,
        directories: &Directories,
        machine: &str,
    ) -> Result<(), SshError> {
        if machine != format!("{SYSTEM} {MACHINE}") {
            return Err(self.told(
                Phase::PlaceAgent,
                format!("the host is `{machine}`, and this executr's agent is for {SYSTEM} {MACHINE}"),
                "run the job on hosts of this kind, or start a worker of an executr that was built for the host's",
            ));
        }
        let bytes = self.agent.bytes().await;
        let bytes = bytes.map_err(|problem| self.told(Phase::PlaceAgent, problem, "install executr again"))?;
        tracing::debug!(host = %self.target, bytes = bytes.len(), "the agent is sent");
        let mut session = self.session(control, &script::place(directories, &self.agent.digest))?;
        let mark = session.mark_after(bytes, Phase::PlaceAgent).await?;
        if mark.word == "placed" {
            return Ok(());
        }
        let said = session.last_words().await;
        match mark.word.as_str() {
            "unplaced" => Err(self.told(
                Phase::PlaceAgent,
                format!("the agent can't be written to {}: {said}", mark.rest),
                "make room there, or name another directory by `workspace_dir`",
            )),
            "nowhere" => Err(self.told(
                Phase::PlaceAgent,
                format!("there is no directory to keep the agent in: {said}"),
                "name one by `workspace_dir` in which this user can write and start programs",
            )),
            _ => Err(self.strange(&mark)),
        }
    }

    fn told(&self, phase: Phase, problem: impl Into<String>, remedy: &str) -> SshError {
        SshError::new(&self.target, phase, problem, remedy)
    }

    fn strange(&self, mark: &Mark) -> SshError {
        let problem = format!("it answers `{} {}`", mark.word.escape_debug(), mark.rest.escape_debug());
        self.told(Phase::Start, problem, "remove the directory of executr there, so that the agent is sent again")
    }

    /// Ends connections that were made.
    pub(super) async fn close(&self) {
        self.end(&mut *self.state.lock().await).await;
    }

    async fn end(&self, state: &mut State) {
        while let Some(socket) = state.sockets.pop_front() {
            let ended = self.client.end(&socket, &self.target).status();
            // Where it doesn't go, it goes by itself when nobody uses it.
            drop(tokio::time::timeout(ENDING, ended).await);
        }
    }
}

#[async_trait]
impl Dial for SshDial {
    async fn dial(&self) -> io::Result<Box<dyn Duplex>> {
        match self.call().await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => {
                let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                *failure = Some(error.clone());
                Err(io::Error::other(error))
            }
        }
    }
}
