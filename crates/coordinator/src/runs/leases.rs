//! What a lease on a job of a run brings besides the job.

use std::collections::HashMap;

use executr_api::{ApiError, RunContext, WorkspaceId, WorkspaceLease};
use executr_spec::JobId;
use executr_store::{ClaimedRun, LeaseRecord};

use crate::core::Core;
use crate::refusal;
use crate::sessions::Session;

/// What leases bring, by their jobs.
pub(crate) type Contexts = HashMap<JobId, Box<RunContext>>;

impl Core {
    /// What claims brought, as workers get it.
    pub(crate) async fn contexts(
        &self,
        claimed: impl Iterator<Item = (JobId, ClaimedRun)>,
    ) -> Result<Contexts, ApiError> {
        let mut contexts = Contexts::new();
        for (job, claimed) in claimed {
            let ClaimedRun { run, needs, artifacts, workspace } = claimed;
            let workspace = match workspace {
                None => None,
                Some(id) => {
                    let outline = self.outline(run).await?;
                    let jobs = outline.workspaces.get(&id.executor).cloned().unwrap_or_default();
                    Some(WorkspaceLease { id, jobs })
                }
            };
            contexts.insert(job, Box::new(RunContext { run, needs, artifacts, workspace }));
        }
        Ok(contexts)
    }

    /// The same for leases that are held: their answer may have been lost on its way.
    pub(crate) async fn contexts_of(&self, leases: &[&LeaseRecord]) -> Result<Contexts, ApiError> {
        let jobs: Vec<JobId> =
            leases.iter().filter(|lease| may_be_of_a_run(&lease.spec)).map(|lease| lease.fence.job).collect();
        let Some(store) = self.store.runs().filter(|_| !jobs.is_empty()) else { return Ok(Contexts::new()) };
        let claimed = store.claimed_runs(&jobs).await.map_err(refusal::store)?;
        self.contexts(claimed.into_iter()).await
    }

    /// Reads which workspaces a worker holds.
    pub(crate) async fn look_up_workspaces(&self, session: &Session) -> Result<(), ApiError> {
        let Some(store) = self.store.runs() else { return Ok(()) };
        session.adopt_workspaces(store.workspaces_of(&session.id).await.map_err(refusal::store)?);
        Ok(())
    }

    /// A worker has cleaned workspaces up.
    pub(crate) async fn cleaned(&self, session: &Session, workspaces: &[WorkspaceId]) -> Result<(), ApiError> {
        let Some(store) = self.store.runs() else { return Ok(()) };
        // No executor is called so, and no database takes such a text.
        let known = workspaces.iter().filter(|workspace| !workspace.executor.contains('\0')).cloned().collect();
        store.cleaned(&session.id, known).await.map_err(refusal::store)?;
        session.cleaned(workspaces);
        Ok(())
    }
}

/// Whether a job may be one of a run, without reading all of it.
pub(crate) fn may_be_of_a_run(spec: &executr_spec::SpecJson) -> bool {
    spec.as_str().contains("\"workflow\":{")
}
