//! An agent, and the directory it makes job directories in.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use executr_agent_protocol::driver::{Agent, AgentError};
use executr_tree::BlobDir;

use super::sandbox::RemoteSandbox;
use crate::contract::{ExecutorError, JobPlan, LimitOffers, Place, Sandbox, Workspace};
use crate::local::refuse_limits;

/// Linux has one number for it on all machines there are agents for.
const EXISTS: i32 = rustix::io::Errno::EXIST.raw_os_error();
/// So many names are tried for a job's directory.
const NAMES: u32 = 1_000;

/// A place behind an agent.
pub struct RemoteWorkspace {
    /// `None` after cleanup.
    agent: Mutex<Option<Agent>>,
    root: PathBuf,
    blobs: BlobDir,
    limits: LimitOffers,
}

impl RemoteWorkspace {
    /// Job directories are made in `root`, where the agent is; it is made when it isn't there. What jobs make is kept in
    /// `blobs` here until it was passed on.
    ///
    /// # Errors
    /// When the agent is lost, or can't make the directory.
    pub async fn open(agent: Agent, root: PathBuf, blobs: BlobDir) -> Result<Self, ExecutorError> {
        make(&agent, root.clone()).await?.map_or_else(|| Ok(()), Err)?;
        let limits = agent.facts().offers.clone();
        Ok(Self { agent: Mutex::new(Some(agent)), root, blobs, limits })
    }

    fn agent(&self) -> Result<Agent, ExecutorError> {
        let agent = self.agent.lock().unwrap_or_else(PoisonError::into_inner).clone();
        agent.ok_or_else(|| AgentError::Refused("its workspace was cleaned up".to_owned()).into())
    }
}

/// Makes a directory, unless it is there.
async fn make(agent: &Agent, path: PathBuf) -> Result<Option<ExecutorError>, ExecutorError> {
    match agent.make_directory(path, 0o700, "").await? {
        Err(failure) if failure.errno != EXISTS => Ok(Some(ExecutorError::There(failure))),
        _ => Ok(None),
    }
}

#[async_trait]
impl Workspace for RemoteWorkspace {
    fn limits(&self) -> &LimitOffers {
        &self.limits
    }

    async fn setup_job(&self, job: JobPlan) -> Result<Box<dyn Sandbox>, ExecutorError> {
        refuse_limits(&job.limits, &self.limits)?;
        let agent = self.agent()?;
        if let Place::Directory(start) = job.place {
            return Ok(Box::new(RemoteSandbox::new(agent, None, start, self.blobs.clone(), job.limits)));
        }
        let mut count = 0;
        loop {
            let name = match count {
                0 => format!("{}-{}", job.job, job.attempt),
                _ => format!("{}-{}-{count}", job.job, job.attempt),
            };
            let place = self.root.join(name);
            match agent.make_directory(place.clone(), 0o700, "").await? {
                Ok(()) => {
                    let start = place.join("work");
                    return Ok(Box::new(RemoteSandbox::new(agent, Some(place), start, self.blobs.clone(), job.limits)));
                }
                // Left by a worker that is gone, or of one that hasn't heard yet that its lease is lost.
                Err(failure) if failure.errno == EXISTS && count < NAMES => count += 1,
                Err(failure) => return Err(ExecutorError::There(failure)),
            }
        }
    }

    async fn cleanup(&self) {
        let agent = self.agent.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(agent) = agent {
            agent.settle().await;
        }
    }
}
