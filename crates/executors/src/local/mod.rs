//! Jobs in directories of this machine, each run through a keeper.
//!
//! - [`workspace`]: the keepers, one per job at a time, reused from job to job;
//! - [`sandbox`]: one attempt's directory and the keeper that works for it;
//! - [`console`]: commands of people beside it, each with a keeper of its own;
//! - [`work_directory`]: where job directories lie, whose they are, and what dead owners left;
//! - [`sweeper`]: the same for who cleans up without a worker.
//!
//! The keepers may be behind the socket of an agent in a container that has the directories at the same paths: `oci`.
//!
//! A job with one step costs one round trip: the keeper makes the directory, runs the step and removes the directory.

mod console;
mod sandbox;
mod sweeper;
mod work_directory;
mod workspace;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use executr_agent_protocol::driver::KeeperSource;
pub use executr_agent_protocol::driver::{Cgroups, KeeperOptions};

use crate::contract::{Executor, ExecutorError, Workspace};
pub use sweeper::LocalSweeper;
pub(crate) use workspace::{LocalWorkspace, RunAs, refuse_limits};

/// Runs jobs on this machine.
#[derive(Clone, Debug)]
pub struct LocalExecutor {
    /// Job directories are made here: `{work_dir}/{job-id}/`.
    pub work_dir: PathBuf,
    /// How to start a keeper.
    pub keeper: KeeperOptions,
}

#[async_trait]
impl Executor for LocalExecutor {
    async fn setup_workspace(&self) -> Result<Arc<dyn Workspace>, ExecutorError> {
        let source = KeeperSource::Process(self.keeper.clone());
        Ok(Arc::new(LocalWorkspace::open(self.work_dir.clone(), source, RunAs::default()).await?))
    }
}
