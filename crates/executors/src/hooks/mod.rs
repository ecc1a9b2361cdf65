//! Jobs wherever somebody's scripts say: seven hooks in bash, each run by a keeper of this machine.
//!
//! - [`options`]: the scripts;
//! - [`sandbox`]: where they run: for a workspace once, for each attempt once more;
//! - [`state`]: what a hook leaves to later ones: exports and its directory;
//! - `driver.bash`: what runs one, and tells how it ended.
//!
//! A hook is sourced with `set -eE -o pipefail`, so the first command that fails ends it. It starts in the directory
//! where the one before it ended, first of all in a copy of the repository, with what that one exported. What the
//! workspace's hooks left is where each job's begin. A hook is over when its last process is: what is to live on has to
//! be somebody else's, as a container is.

mod options;
mod sandbox;
mod state;

use std::sync::Arc;

use async_trait::async_trait;
use executr_spec::JobId;
use tokio::sync::{Mutex, MutexGuard};

use crate::contract::{ExecutorError, JobPlan, LimitOffers, Limits, Place, Sandbox, Workspace};
pub use options::{Hook, HooksOptions};
pub use sandbox::HookedSandbox;
use sandbox::Level;

/// A workspace that scripts set up. Its own hooks are run through [`own`](Self::own).
pub struct HooksWorkspace {
    machine: Arc<dyn Workspace>,
    options: Arc<HooksOptions>,
    own: Mutex<HookedSandbox>,
}

impl HooksWorkspace {
    /// Makes room for a workspace on this machine: a directory and a keeper, both named by `id`. Runs nothing yet.
    ///
    /// # Errors
    /// When there is no room.
    pub async fn open(machine: Arc<dyn Workspace>, id: JobId, options: HooksOptions) -> Result<Self, ExecutorError> {
        let options = Arc::new(options);
        let plan = JobPlan { job: id, attempt: 1, place: Place::Sandbox, limits: Limits::default() };
        let scratch = machine.setup_job(plan).await?;
        let own = HookedSandbox::new(scratch, Arc::clone(&options), Level::Workspace, None).await?;
        Ok(Self { machine, options, own: Mutex::new(own) })
    }

    /// The place of the workspace's own hooks.
    pub async fn own(&self) -> MutexGuard<'_, HookedSandbox> {
        self.own.lock().await
    }
}

#[async_trait]
impl Workspace for HooksWorkspace {
    fn limits(&self) -> &LimitOffers {
        self.machine.limits()
    }

    async fn setup_job(&self, mut job: JobPlan) -> Result<Box<dyn Sandbox>, ExecutorError> {
        job.place = Place::Sandbox;
        let left = self.own.lock().await.left().clone();
        let scratch = self.machine.setup_job(job).await?;
        Ok(Box::new(HookedSandbox::new(scratch, Arc::clone(&self.options), Level::Job, Some(left)).await?))
    }

    async fn cleanup(&self) {
        if let Err(error) = self.own.lock().await.cleanup().await {
            tracing::warn!(%error, "the directory of a workspace stays behind");
        }
    }
}
