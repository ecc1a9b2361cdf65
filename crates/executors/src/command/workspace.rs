//! An argv for each job.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use executr_agent_protocol::driver::{Agent, AgentError, AgentOptions, KeeperSource, OneStream};
use executr_tree::BlobDir;
use tokio::net::UnixStream;

use super::error::CommandError;
use super::options::{CommandOptions, Given};
use super::process::Process;
use super::sandbox::CommandSandbox;
use crate::contract::{
    ExecutorError, JobPlan, KeeperError, LimitOffers, Limits, Place, Program, Sandbox, StepPlan, Workspace,
};
use crate::local::{LocalWorkspace, RunAs};
use crate::oci::AgentProgram;
use crate::remote::RemoteWorkspace;

/// How long an argv may take to bring its agent to answer: some start a machine first.
const ANSWER: Duration = Duration::from_secs(120);
/// How long after the stream's end its own may take, which explains that.
const EXPLAINED: Duration = Duration::from_secs(2);

/// Where things are on this machine.
#[derive(Clone, Debug, Default)]
pub struct CommandHost {
    /// The agent that an argv starts.
    pub agent: AgentProgram,
    /// Where fetched programs are kept.
    pub programs: PathBuf,
}

/// Places behind an argv, one for each job.
pub struct CommandWorkspace {
    host: CommandHost,
    machine: Arc<dyn Workspace>,
    options: CommandOptions,
    given: Given,
    env: Vec<Bytes>,
}

impl CommandWorkspace {
    /// Starts nothing yet. `machine` makes directories here and runs each argv, whose whole environment is `env`.
    #[must_use]
    pub fn new(
        host: CommandHost,
        machine: Arc<dyn Workspace>,
        options: CommandOptions,
        given: Given,
        env: Vec<Bytes>,
    ) -> Self {
        Self { host, machine, options, given, env }
    }

    /// The step of this machine that is the argv, connected to `socket`.
    fn step(&self, agent: &Path, socket: &Path, jobs: &Path) -> StepPlan {
        let word = |path: &Path| Bytes::copy_from_slice(path.as_os_str().as_bytes());
        let mut argv = vec![word(agent), Bytes::from_static(b"connect"), word(socket)];
        argv.extend(self.options.words(&self.given, agent, jobs, &self.host.programs));
        StepPlan { program: Program::Argv(argv), env: self.env.clone(), workdir: None, last: false }
    }

    /// What is reached through `stream`: a directory that both sides see, or one that only the agent does. Whether it does.
    async fn reached(&self, stream: UnixStream, jobs: &Path) -> Result<(Box<dyn Workspace>, bool), ExecutorError> {
        if let Some(directory) = &self.options.directory {
            // There is no other stream: once it is cut, all is over.
            let options = AgentOptions { patience: Duration::ZERO, ..AgentOptions::default() };
            let agent = Agent::connect(Arc::new(OneStream::new(stream)), options).await?;
            let blobs =
                BlobDir::open(jobs.join("blobs")).map_err(|error| ExecutorError::Transfer(error.to_string()))?;
            return Ok((Box::new(RemoteWorkspace::open(agent, directory.clone(), blobs).await?), true));
        }
        let stream: OwnedFd = stream.into_std().map_err(KeeperError::Connection)?.into();
        let source = KeeperSource::Stream(Arc::new(stream));
        let workspace = LocalWorkspace::open(jobs.to_owned(), source, RunAs::default()).await?;
        let is_shared = workspace.shares_directory().await?;
        Ok((Box::new(workspace), is_shared))
    }

    /// Waits until the agent behind `process` answers on its stream.
    async fn answer(
        &self,
        process: &Process,
        listener: UnixListener,
        jobs: PathBuf,
    ) -> Result<Box<dyn Workspace>, ExecutorError> {
        let program = || self.options.program().to_owned();
        let reached = async {
            let stream = accepted(listener).await.map_err(KeeperError::Connection)?;
            self.reached(stream, &jobs).await
        };
        let reached = tokio::select! {
            reached = tokio::time::timeout(ANSWER, reached) => reached,
            account = process.ended() => return Err(CommandError::Ended { program: program(), account }.into()),
        };
        match reached {
            Ok(Ok((workspace, true))) => return Ok(workspace),
            Ok(Ok(_)) => return Err(CommandError::Elsewhere { program: program(), directory: jobs }.into()),
            Ok(Err(ExecutorError::Agent(KeeperError::Protocol(problem)))) => {
                return Err(CommandError::Garbled { program: program(), problem, said: process.said() }.into());
            }
            Ok(Err(ExecutorError::Remote(error @ (AgentError::Version { .. } | AgentError::Protocol(_))))) => {
                let problem = error.to_string();
                return Err(CommandError::Garbled { program: program(), problem, said: process.said() }.into());
            }
            Ok(Err(ExecutorError::Agent(_) | ExecutorError::Remote(_))) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(CommandError::Silent { program: program(), said: process.said() }.into()),
        }
        match tokio::time::timeout(EXPLAINED, process.ended()).await {
            Ok(account) => Err(CommandError::Ended { program: program(), account }.into()),
            Err(_) => Err(CommandError::Silent { program: program(), said: process.said() }.into()),
        }
    }
}

#[async_trait]
impl Workspace for CommandWorkspace {
    /// Those of this machine: an argv is a task of it, and they hold for all it starts.
    fn limits(&self) -> &LimitOffers {
        self.machine.limits()
    }

    async fn setup_job(&self, job: JobPlan) -> Result<Box<dyn Sandbox>, ExecutorError> {
        if self.options.argv.is_empty() {
            return Err(CommandError::NoProgram.into());
        }
        let agent = self.host.agent.find().map_err(CommandError::NoAgent)?;
        let mut scratch = self.machine.setup_job(JobPlan { place: Place::Sandbox, ..job.clone() }).await?;
        let (jobs, socket, listener) = match prepared(scratch.as_mut()).await {
            Ok(prepared) => prepared,
            Err(error) => {
                drop(scratch.cleanup().await);
                return Err(error);
            }
        };
        let process = Process::start(scratch, self.step(&agent, &socket, &jobs));
        let workspace = match self.answer(&process, listener, jobs).await {
            Ok(workspace) => workspace,
            Err(error) => {
                process.kill();
                if let Err(error) = process.finish().await {
                    tracing::warn!(%error, "what an executor's argv left stays behind");
                }
                return Err(error);
            }
        };
        let place = workspace.setup_job(JobPlan { place: Place::Sandbox, limits: Limits::default(), ..job }).await?;
        Ok(Box::new(CommandSandbox::new(place, workspace, process, self.options.program().to_owned())))
    }

    /// Nothing is shared.
    async fn cleanup(&self) {}
}

/// Makes what an argv needs: the directory of its job, and the socket that becomes its standard input and output.
async fn prepared(scratch: &mut dyn Sandbox) -> Result<(PathBuf, PathBuf, UnixListener), ExecutorError> {
    scratch.make_directory().await?;
    let scratch = scratch.directory();
    let (jobs, socket) = (scratch.join("jobs"), scratch.join("stream"));
    let failed = |source| ExecutorError::Directory { path: scratch.to_owned(), source };
    DirBuilder::new().mode(0o700).create(&jobs).map_err(failed)?;
    let listener = listen(scratch, "stream").map_err(failed)?;
    Ok((jobs, socket, listener))
}

fn listen(directory: &Path, name: &str) -> io::Result<UnixListener> {
    // By way of its directory: an address holds only 108 bytes.
    let directory = File::open(directory)?;
    let listener = UnixListener::bind(Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The first connection; there is no other.
async fn accepted(listener: UnixListener) -> io::Result<UnixStream> {
    Ok(tokio::net::UnixListener::from_std(listener)?.accept().await?.0)
}
