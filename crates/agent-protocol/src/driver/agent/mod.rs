//! An agent, wherever it is, over any stream of bytes.
//!
//! - `dial`: how a stream to it is had;
//! - `connection`: HTTP/2 on one such stream;
//! - `task`: one task, through any number of cuts;
//! - `files`: single files and directories there;
//! - `trees`: whole trees of them;
//! - `golden`: trees kept there to make others of;
//! - `error`: what can go wrong.
//!
//! A connection serves everything that is asked of an agent; when it breaks, the next one who needs it makes another, and finds
//! out whether the agent is still the same.

mod connection;
mod dial;
mod error;
mod files;
mod golden;
mod task;
mod trees;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, sleep};

use super::{Offers, StartTask};
use crate::v1::agent_client::AgentClient;
use crate::v1::{HelloRequest, HelloResponse, ListTasksRequest, TaskSummary};
use crate::{MAX_MESSAGE, PROTOCOL};

pub use connection::Wired;
pub use dial::{Dial, Duplex, OneStream, TcpDial, UnixDial};
pub use error::AgentError;
pub use files::FileContent;
pub use golden::KnownManifests;
pub use task::{AgentTask, TaskNote};
pub use trees::{Packed, PutTree, TakeTree, Touched, TreeError, TreeWatch};

/// How long an agent may be out of reach, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a silent agent is taken to be there, unless told otherwise.
const PING: Duration = Duration::from_secs(10);

/// How much longer than its caller the agent waits: the caller is to give up first.
const HEAD_START: Duration = Duration::from_secs(5);

/// Pauses between calls of an agent that doesn't answer.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long it may take to say hello once there is a stream.
const ANSWER: Duration = Duration::from_secs(20);

/// How to speak to an agent.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// How long it may be out of reach before what runs there is given up. With zero, a stream that is cut is the end, there and
    /// here.
    pub patience: Duration,
    /// What an agent behind TCP asks for.
    pub token: Option<Token>,
    /// The SHA-256 its program must have, in hexadecimal digits.
    pub digest: Option<String>,
    /// How long it may be silent before it is asked whether it is still there, and then may take to answer.
    pub ping: Duration,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self { patience: PATIENCE, token: None, digest: None, ping: PING }
    }
}

/// A secret, which is never shown.
#[derive(Clone)]
pub struct Token(pub String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// What an agent said about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentFacts {
    /// SHA-256 of its program in hexadecimal digits, where one was demanded.
    pub digest: Option<String>,
    /// Its process id, there.
    pub pid: u32,
    /// Differs from that of every other agent.
    pub instance_id: String,
    /// Differs from boot to boot of its machine; may be empty.
    pub boot_id: String,
    /// Of its machine: `x86_64`, `aarch64`.
    pub architecture: String,
    /// Which limits on a task's tree can be kept there.
    pub offers: Offers,
    /// Who runs it.
    pub uid: u32,
    /// And that user's group.
    pub gid: u32,
}

impl From<HelloResponse> for AgentFacts {
    fn from(wire: HelloResponse) -> Self {
        Self {
            digest: Some(wire.digest).filter(|digest| !digest.is_empty()),
            pid: wire.pid,
            instance_id: wire.instance_id,
            boot_id: wire.boot_id,
            architecture: wire.architecture,
            offers: wire.offers.unwrap_or_default().into(),
            uid: wire.uid,
            gid: wire.gid,
        }
    }
}

/// An agent. A clone is the same one.
#[derive(Clone)]
pub struct Agent {
    shared: Arc<Shared>,
}

struct Shared {
    dial: Arc<dyn Dial>,
    options: AgentOptions,
    facts: AgentFacts,
    wired: Mutex<Wired>,
    /// What names of tasks begin with: nobody else's do.
    prefix: String,
    next_task: AtomicU64,
    /// Dropped tasks that haven't ended yet.
    ending: AtomicUsize,
    settled: Notify,
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("facts", &self.shared.facts).finish_non_exhaustive()
    }
}

impl Agent {
    /// Calls an agent, once.
    ///
    /// # Errors
    /// When there is no stream to it, or it isn't the one that was to be there.
    pub async fn connect(dial: Arc<dyn Dial>, options: AgentOptions) -> Result<Self, AgentError> {
        let (wired, facts) = call(dial.as_ref(), &options).await?;
        let shared = Shared {
            dial,
            options,
            facts,
            wired: Mutex::new(wired),
            prefix: random_name().map_err(AgentError::Random)?,
            next_task: AtomicU64::new(1),
            ending: AtomicUsize::new(0),
            settled: Notify::new(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What it said about itself.
    #[must_use]
    pub fn facts(&self) -> &AgentFacts {
        &self.shared.facts
    }

    /// Starts a task. That its program can't be started is an event.
    ///
    /// # Errors
    /// When the agent is lost.
    pub async fn start(&self, task: StartTask) -> Result<AgentTask, AgentError> {
        let number = self.shared.next_task.fetch_add(1, Ordering::Relaxed);
        AgentTask::start(self.clone(), format!("{}-{number}", self.shared.prefix), task).await
    }

    /// Waits until nothing is left of tasks that were dropped.
    pub async fn settle(&self) {
        loop {
            let settled = self.shared.settled.notified();
            if self.shared.ending.load(Ordering::Relaxed) == 0 {
                return;
            }
            settled.await;
        }
    }

    /// The tasks there whose result nobody has taken yet, whoever started them.
    ///
    /// # Errors
    /// When the agent is lost.
    pub async fn tasks(&self) -> Result<Vec<TaskSummary>, AgentError> {
        self.ask(|wired| async move {
            let mut client = AgentClient::with_origin(wired, Wired::origin());
            Ok(client.list_tasks(ListTasksRequest {}).await?.into_inner().tasks)
        })
        .await
    }

    /// A connection that works, for calls of other services; the one there is, or another one.
    ///
    /// # Errors
    /// When the agent is lost.
    pub async fn wired(&self) -> Result<Wired, AgentError> {
        let mut wired = self.shared.wired.lock().await;
        if wired.is_open() {
            return Ok(wired.clone());
        }
        let patience = self.shared.options.patience;
        let deadline = Instant::now() + patience;
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.call_again().await {
                Ok(again) => {
                    *wired = again.clone();
                    return Ok(again);
                }
                Err(error) => error,
            };
            if !error.may_pass() {
                return Err(error);
            }
            if Instant::now() + pause >= deadline {
                return Err(AgentError::Lost { patience, problem: error.to_string() });
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Another stream to the same agent.
    async fn call_again(&self) -> Result<Wired, AgentError> {
        let (wired, facts) = call(self.shared.dial.as_ref(), &self.shared.options).await?;
        let known = &self.shared.facts;
        if facts.instance_id == known.instance_id {
            return Ok(wired);
        }
        if facts.boot_id != known.boot_id {
            return Err(AgentError::Rebooted);
        }
        Err(AgentError::Restarted)
    }

    /// Asks something that may be asked again.
    async fn ask<T, A>(&self, question: impl Fn(Wired) -> A) -> Result<T, AgentError>
    where
        A: Future<Output = Result<T, tonic::Status>>,
    {
        let deadline = Instant::now() + self.shared.options.patience;
        loop {
            let wired = self.wired().await?;
            match question(wired.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(status) => {
                    let error = AgentError::of(&status);
                    if !error.may_pass() || Instant::now() >= deadline {
                        return Err(error);
                    }
                    wired.close();
                }
            }
        }
    }
}

/// A stream to an agent that has said what it is.
async fn call(dial: &dyn Dial, options: &AgentOptions) -> Result<(Wired, AgentFacts), AgentError> {
    let stream = dial.dial().await.map_err(AgentError::Dial)?;
    let answered = tokio::time::timeout(ANSWER, async {
        let wired = Wired::over(stream, options).await?;
        let mut client = AgentClient::with_origin(wired.clone(), Wired::origin());
        let hello = HelloRequest { protocol: PROTOCOL, digest: options.digest.is_some() };
        let answer = client.hello(hello).await.map_err(|status| AgentError::of(&status))?;
        Ok((wired, answer.into_inner()))
    });
    let (wired, answer) = answered.await.map_err(|_| AgentError::Silent)??;
    if answer.protocol != PROTOCOL {
        return Err(AgentError::Version { theirs: answer.protocol });
    }
    let facts = AgentFacts::from(answer);
    match &options.digest {
        Some(expected) if facts.digest.as_ref() != Some(expected) => {
            Err(AgentError::Digest { expected: expected.clone(), found: facts.digest.unwrap_or_default() })
        }
        _ => Ok((wired, facts)),
    }
}

/// 64 bits nobody else has.
fn random_name() -> std::io::Result<String> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}

fn client(wired: Wired) -> AgentClient<Wired> {
    AgentClient::with_origin(wired, Wired::origin())
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}
