//! The keepers, one per job at a time.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use executr_agent_protocol::driver::{Keeper, KeeperSource};
use futures_util::future::join_all;

use super::sandbox::LocalSandbox;
use super::work_directory::WorkDirectory;
use crate::contract::{ExecutorError, JobPlan, LimitOffers, Limits, Sandbox, Workspace};

/// Keepers that rest until the next job.
pub(super) type Pool = Arc<Mutex<Vec<Resting>>>;

/// What a directory is called that an agent elsewhere is asked to remove.
const PROBE: &str = ".executr-probe";

/// A keeper nobody uses now.
#[derive(Debug)]
pub(super) struct Resting {
    pub(super) keeper: Keeper,
    /// It can't be used any more, and its successor is still to be started.
    pub(super) lost: bool,
    /// What the last job left, because nobody cleaned up after it.
    pub(super) left: Option<PathBuf>,
}

/// As whom steps run, and with how little.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunAs {
    /// As `StartTask` has it; empty is whoever runs the keeper.
    pub(crate) user: String,
    /// Without any capability, for good.
    pub(crate) without_privileges: bool,
}

/// This machine, or a part of it, set up for jobs.
pub(crate) struct LocalWorkspace {
    work: Arc<WorkDirectory>,
    source: KeeperSource,
    run_as: Arc<RunAs>,
    limits: LimitOffers,
    pool: Pool,
}

impl LocalWorkspace {
    pub(crate) async fn open(work_dir: PathBuf, source: KeeperSource, run_as: RunAs) -> Result<Self, ExecutorError> {
        let work = Arc::new(WorkDirectory::open(work_dir)?);
        let keeper = Keeper::of(source.clone()).await?;
        let limits = keeper.offers().clone();
        let pool = Arc::new(Mutex::new(vec![Resting { keeper, lost: false, left: None }]));
        Ok(Self { work, source, run_as: Arc::new(run_as), limits, pool })
    }

    /// Whether whoever serves its keepers has its directory at the same path, and may change what is in it.
    pub(crate) async fn shares_directory(&self) -> Result<bool, ExecutorError> {
        let probe = self.work.path().join(PROBE);
        DirBuilder::new()
            .mode(0o700)
            .create(&probe)
            .map_err(|source| ExecutorError::Directory { path: probe.clone(), source })?;
        let mut keeper = self.keeper().await?;
        let asked = keeper.remove_directory(&probe).await;
        let lost = asked.is_err();
        self.pool.lock().unwrap_or_else(PoisonError::into_inner).push(Resting { keeper, lost, left: None });
        // One that isn't there is no error to who is asked, so it is looked for here.
        Ok(asked?.is_ok() && !probe.exists())
    }

    async fn keeper(&self) -> Result<Keeper, ExecutorError> {
        let resting = self.pool.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some(mut resting) = resting else { return Ok(Keeper::of(self.source.clone()).await?) };
        if let Err(error) = revive(&mut resting).await {
            self.pool.lock().unwrap_or_else(PoisonError::into_inner).push(resting);
            return Err(error);
        }
        Ok(resting.keeper)
    }
}

/// Makes a resting keeper usable.
async fn revive(resting: &mut Resting) -> Result<(), ExecutorError> {
    if resting.lost {
        resting.keeper.respawn().await?;
        resting.lost = false;
    }
    if let Some(left) = resting.left.take()
        && let Err(failure) = resting.keeper.remove_directory(&left).await?
    {
        tracing::warn!(directory = %left.display(), %failure, "a job directory stays behind");
    }
    Ok(())
}

#[async_trait]
impl Workspace for LocalWorkspace {
    fn limits(&self) -> &LimitOffers {
        &self.limits
    }

    async fn setup_job(&self, job: JobPlan) -> Result<Box<dyn Sandbox>, ExecutorError> {
        refuse_limits(&job.limits, &self.limits)?;
        let place = self
            .work
            .place(&job.job.to_string(), job.attempt)
            .map_err(|source| ExecutorError::Directory { path: self.work.path().to_owned(), source })?;
        let keeper = self.keeper().await?;
        Ok(Box::new(LocalSandbox::new(
            keeper,
            self.source.clone(),
            Arc::clone(&self.pool),
            place,
            job,
            Arc::clone(&self.run_as),
        )))
    }

    async fn cleanup(&self) {
        let resting = std::mem::take(&mut *self.pool.lock().unwrap_or_else(PoisonError::into_inner));
        // A process takes about as long to go as to come.
        let closing = resting.into_iter().map(|mut resting| async move {
            if let Err(error) = revive(&mut resting).await {
                tracing::warn!(%error, "a keeper can't clean up");
            }
            if let Err(error) = resting.keeper.close().await {
                tracing::warn!(%error, "a keeper can't be waited for");
            }
        });
        join_all(closing).await;
    }
}

pub(crate) fn refuse_limits(asked: &Limits, offered: &LimitOffers) -> Result<(), ExecutorError> {
    let refusals = [
        ("cpu", asked.cpu_millis > 0, &offered.cpu),
        ("memory", asked.memory_bytes > 0, &offered.memory),
        ("pids", asked.pids > 0, &offered.pids),
    ];
    for (limit, is_asked, offer) in refusals {
        if let (true, Err(reason)) = (is_asked, offer) {
            return Err(ExecutorError::Limit { limit, reason: reason.clone() });
        }
    }
    Ok(())
}

/// Removes a directory through a keeper.
pub(super) async fn remove(keeper: &mut Keeper, directory: &Path) -> Result<(), ExecutorError> {
    keeper.remove_directory(directory).await?.map_err(ExecutorError::Left)
}
