//! The hosts of a worker: its connections, which jobs share, and whose turn it is.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use executr_spec::JobId;
use executr_tree::BlobDir;
use rustix::fs::{Mode as FileMode, OFlags};
use tokio::sync::{Notify, OnceCell};
use tokio::time::Instant;
use uuid::Uuid;

use super::agent_copy::AgentCopy;
use super::client::Client;
use super::connection::{Connection, LONGER, PATIENCE};
use super::dial::{ControlDirectory, SshDial};
use super::error::{Phase, SshError};
use super::health::{Turn, Turns};
use super::notes::Note;
use super::options::{Mode, SshOptions};
use super::target::Target;
use crate::contract::{ExecutorError, JobPlan, LimitOffers, Limits, Place, Sandbox, Workspace};
use crate::oci::AgentProgram;

/// How long a connection stays that no job uses.
const IDLE: Duration = Duration::from_secs(60);

/// How a worker gets to hosts.
#[derive(Clone, Debug, Default)]
pub struct SshHostOptions {
    /// The client.
    pub client: Client,
    /// The agent that is sent.
    pub agent: AgentProgram,
    /// Where it is noted that something is on a host.
    pub notes: Option<PathBuf>,
}

/// The hosts of a worker.
pub struct SshHosts {
    options: SshHostOptions,
    machine: Arc<dyn Workspace>,
    ready: OnceCell<Ready>,
    /// One for each way to a host.
    shared: Mutex<HashMap<Target, Arc<Shared>>>,
    /// One for each set of hosts that take turns.
    groups: Mutex<HashMap<GroupKey, Arc<Group>>>,
}

type GroupKey = (Vec<Target>, Option<NonZeroU32>);

/// A host that one gets to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Where jobs have their directories.
    pub place: PathBuf,
    /// What machine it is: `x86_64`.
    pub architecture: String,
    /// As whom, by number.
    pub user: u32,
    /// Which limits of jobs can be kept there.
    pub limits: LimitOffers,
    /// How long it took to get there.
    pub took: Duration,
}

/// What is needed for any host.
struct Ready {
    agent: AgentCopy,
    control: Arc<ControlDirectory>,
    /// Kept open: sockets are found by its number, which makes their paths short.
    _directory: OwnedFd,
    scratch: tokio::sync::Mutex<Box<dyn Sandbox>>,
    blobs: BlobDir,
}

/// Hosts that take turns.
struct Group {
    targets: Vec<Target>,
    turns: Mutex<Turns>,
    /// One has become free.
    freed: Notify,
}

/// The connection that all jobs of a host share, while there is one.
#[derive(Default)]
struct Shared {
    connection: tokio::sync::Mutex<Option<Arc<Connection>>>,
    jobs: AtomicUsize,
}

/// A job's right to a connection.
pub(super) struct Lent {
    connection: Arc<Connection>,
    way: Way,
    turn: Option<(Arc<Group>, usize)>,
}

enum Way {
    /// Others may use it, too.
    Shared(Arc<Shared>),
    /// It ends with the job.
    Own,
}

impl fmt::Debug for SshHosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SshHosts").field("options", &self.options).finish_non_exhaustive()
    }
}

impl SshHosts {
    /// Connects to nothing yet. What is needed on this machine is kept in a directory of `machine`.
    #[must_use]
    pub fn new(options: SshHostOptions, machine: Arc<dyn Workspace>) -> Self {
        let (shared, groups) = (Mutex::default(), Mutex::default());
        Self { options, machine, ready: OnceCell::new(), shared, groups }
    }

    /// A connection to the host whose turn it is.
    pub(super) async fn lend(&self, options: &SshOptions) -> Result<Lent, ExecutorError> {
        let targets = options.targets();
        let nothing = || SshError::new("ssh", Phase::Client, "no host is named", "write `host`, or `hosts`");
        if targets.is_empty() {
            return Err(nothing().into());
        }
        let group = self.group((targets, options.max_jobs));
        let mut tried = Vec::new();
        let mut problems: Vec<SshError> = Vec::new();
        loop {
            let freed = group.freed.notified();
            let turn = group.turns().take(&tried, Instant::now());
            let host = match turn {
                Turn::Host(host) => host,
                Turn::Full => {
                    freed.await;
                    continue;
                }
                Turn::NoOther => return Err(all_of(problems).unwrap_or_else(nothing).into()),
            };
            let taken = Taken { group: Arc::clone(&group), host: Some(host) };
            match self.connection(&group.targets[host], options.mode).await {
                Ok((connection, way)) => {
                    group.turns().works(host);
                    return Ok(Lent { connection, way, turn: taken.keep() });
                }
                Err(ExecutorError::Ssh(error)) => {
                    group.turns().failed(host, Instant::now());
                    tracing::debug!(%error, "a host doesn't take the job");
                    problems.push(error);
                    tried.push(host);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn group(&self, key: GroupKey) -> Arc<Group> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let group = groups.entry(key).or_insert_with_key(|(targets, most)| {
            let turns = Mutex::new(Turns::new(targets.len(), *most));
            Arc::new(Group { targets: targets.clone(), turns, freed: Notify::new() })
        });
        Arc::clone(group)
    }

    async fn connection(&self, target: &Target, mode: Mode) -> Result<(Arc<Connection>, Way), ExecutorError> {
        if mode == Mode::Dedicated {
            return Ok((Arc::new(self.open(target).await?), Way::Own));
        }
        let shared = {
            let mut all = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(target.clone()).or_default())
        };
        // Whoever comes first makes it, and the others wait for that.
        let mut there = shared.connection.lock().await;
        let connection = match there.as_ref().filter(|connection| !connection.is_lost()) {
            Some(connection) => Arc::clone(connection),
            None => {
                let opened = Arc::new(self.open(target).await?);
                *there = Some(Arc::clone(&opened));
                opened
            }
        };
        shared.jobs.fetch_add(1, Ordering::Relaxed);
        drop(there);
        Ok((connection, Way::Shared(shared)))
    }

    /// A fresh connection.
    pub(super) async fn open(&self, target: &Target) -> Result<Connection, ExecutorError> {
        let ready = self.ready(target).await?;
        let id = Uuid::new_v4().simple().to_string();
        let note = match self.options.notes.as_deref().map(|notes| Note::write(notes, &id, target)).transpose() {
            Ok(note) => note,
            Err(error) => {
                tracing::warn!(host = %target, %error, "it can't be noted that jobs run on the host");
                None
            }
        };
        let (client, agent) = (self.options.client.clone(), ready.agent.clone());
        let control = Arc::clone(&ready.control);
        let dial = SshDial::new(client, target.clone(), agent, control, id, PATIENCE + LONGER);
        Ok(Connection::open(dial, note, ready.blobs.clone()).await?)
    }

    async fn ready(&self, target: &Target) -> Result<&Ready, ExecutorError> {
        let making = async {
            let agent = AgentCopy::find(&self.options.agent).await.map_err(|problem| {
                SshError::new(target, Phase::PlaceAgent, format!("there is no agent to send: {problem}"), "see above")
            })?;
            let plan =
                JobPlan { job: JobId(Uuid::new_v4()), attempt: 1, place: Place::Sandbox, limits: Limits::default() };
            let mut scratch = self.machine.setup_job(plan).await?;
            scratch.make_directory().await?;
            let (directory, path) = short(scratch.directory())?;
            let control = Arc::new(ControlDirectory::new(path));
            let blobs = BlobDir::open(scratch.directory().join("blobs")).map_err(|error| ExecutorError::Directory {
                path: scratch.directory().to_owned(),
                source: std::io::Error::other(error),
            })?;
            Ok(Ready { agent, control, _directory: directory, scratch: tokio::sync::Mutex::new(scratch), blobs })
        };
        self.ready.get_or_try_init(|| making).await
    }

    /// Gets to a host by way of all phases, and says what is there.
    ///
    /// # Errors
    /// Why one can't get there, or this machine doesn't do.
    pub async fn look(&self, target: &Target) -> Result<Seen, ExecutorError> {
        let begin = Instant::now();
        let connection = self.open(target).await?;
        let facts = connection.agent().facts();
        let seen = Seen {
            place: connection.root().to_owned(),
            architecture: facts.architecture.clone(),
            user: facts.uid,
            limits: facts.offers.clone(),
            took: begin.elapsed(),
        };
        connection.close().await;
        Ok(seen)
    }

    /// Ends all connections. No job may be in use of one.
    pub async fn close(&self) {
        let all = std::mem::take(&mut *self.shared.lock().unwrap_or_else(PoisonError::into_inner));
        let closing = all.into_values().map(|shared| async move {
            let connection = shared.connection.lock().await.take();
            close(connection).await;
        });
        futures_util::future::join_all(closing).await;
        if let Some(ready) = self.ready.get()
            && let Err(error) = ready.scratch.lock().await.cleanup().await
        {
            tracing::warn!(%error, "what connections to hosts needed here stays");
        }
    }
}

/// A directory held open, and a path to it that stays short.
pub(super) fn short(directory: &Path) -> Result<(OwnedFd, PathBuf), ExecutorError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let held = rustix::fs::open(directory, flags, FileMode::empty())
        .map_err(|error| ExecutorError::Directory { path: directory.to_owned(), source: error.into() })?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), held.as_raw_fd());
    Ok((held, path.into()))
}

/// What all hosts that were tried have to say.
fn all_of(mut problems: Vec<SshError>) -> Option<SshError> {
    let last = problems.pop()?;
    if problems.is_empty() {
        return Some(last);
    }
    problems.push(last);
    let count = problems.len();
    let all: Vec<_> = problems.iter().map(ToString::to_string).collect();
    let furthest = problems.iter().map(|error| error.phase).max().unwrap_or(Phase::Connect);
    Some(SshError::new(format!("{count} hosts"), furthest, "none takes the job", all.join(" | ")))
}

async fn close(connection: Option<Arc<Connection>>) {
    if let Some(connection) = connection.and_then(Arc::into_inner) {
        connection.close().await;
    }
}

impl Group {
    fn turns(&self) -> std::sync::MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, host: usize) {
        self.turns().give_back(host);
        self.freed.notify_waiters();
    }
}

/// A host's place for a job, given back unless it is kept.
struct Taken {
    group: Arc<Group>,
    host: Option<usize>,
}

impl Taken {
    fn keep(mut self) -> Option<(Arc<Group>, usize)> {
        self.host.take().map(|host| (Arc::clone(&self.group), host))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(host) = self.host.take() {
            self.group.give_back(host);
        }
    }
}

impl Lent {
    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// The host is lost to the job: the next one goes elsewhere, if it can.
    pub(super) fn failed(&self) {
        if let Some((group, host)) = &self.turn {
            group.turns().failed(*host, Instant::now());
        }
    }

    /// The job is over, in order.
    pub(super) async fn end(mut self) {
        if matches!(self.way, Way::Own) {
            self.give_back();
            let connection = Arc::clone(&self.connection);
            drop(self);
            close(Some(connection)).await;
        }
    }

    fn give_back(&mut self) {
        if let Some((group, host)) = self.turn.take() {
            group.give_back(host);
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.give_back();
        let Way::Shared(shared) = &self.way else { return };
        if shared.jobs.fetch_sub(1, Ordering::Relaxed) == 1
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(end_when_idle(Arc::downgrade(shared)));
        }
    }
}

/// Ends a connection that nobody has used for a while.
async fn end_when_idle(shared: Weak<Shared>) {
    tokio::time::sleep(IDLE).await;
    let Some(shared) = shared.upgrade() else { return };
    let mut there = shared.connection.lock().await;
    if shared.jobs.load(Ordering::Relaxed) == 0 {
        close(there.take()).await;
    }
}
