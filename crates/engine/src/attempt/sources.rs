//! Asking sources of variables, once a run. All jobs are answered by the tree their run starts from, never by what a job
//! has made of its copy: so it doesn't matter who asks first, and no job gives others their variables.

use std::sync::Arc;

use executr_executors::contract::{JobPlan, Limits, Place, PutTo};
use executr_spec::workflow::Provider;
use executr_spec::{Digest, JobId};
use executr_tree::wire::RemoteBlobs;
use uuid::Uuid;

use super::{Attempt, Engine, artifacts, lost};
use crate::providers::{Asking, Provided, ProviderError, Root, ask};
use crate::trees::TreeError;
use crate::verdict::StepVerdict;

const WHAT: &str = "the tree in which `env_from` finds its files";

impl Attempt<'_> {
    /// What a source says.
    ///
    /// # Errors
    /// When it fails, which fails the run, or can't be asked now.
    pub(super) async fn ask(&mut self, provider: &Provider) -> Result<Arc<Provided>, StepVerdict> {
        let (engine, remote, deadline) = (self.engine, self.remote(), self.job_deadline());
        let source = self.spec.workflow.as_ref().and_then(|workflow| workflow.env_source.or(workflow.source));
        let run = self.run.map_or(self.fence.job.0, |run| run.run.0);
        let asked = engine.providers.ask((run, source), provider, async || engine.ask(&remote, source, provider).await);
        let answer = self.wait_for(asked, deadline).await.map_err(StepVerdict::ended_early)??;
        answer.map_err(refused)
    }
}

impl Engine {
    /// Asks a source where its files are.
    ///
    /// # Errors
    /// When it can't be asked now.
    async fn ask(
        &self,
        remote: &Arc<dyn RemoteBlobs>,
        source: Option<Digest>,
        provider: &Provider,
    ) -> Result<Result<Provided, ProviderError>, StepVerdict> {
        let asking = |root| Asking { host: &self.host, policy: &self.policy, root };
        if let Some(repository) = &self.host.repository {
            return Ok(ask(provider, asking(Root::Own(repository))).await);
        }
        let (Some(source), true) = (source, provider.reads_repository()) else {
            return Ok(ask(provider, asking(Root::Nothing)).await);
        };
        let unreadable = |error| artifacts::refused(WHAT, &error);
        let tree = self.trees.fetch(remote, source).await.map_err(unreadable)?;
        if !provider.runs_a_program() || !self.policy.providers {
            let blobs = self.trees.blobs().map_err(unreadable)?;
            return Ok(ask(provider, asking(Root::Tree(&tree, blobs))).await);
        }
        // A copy for it alone: what it makes of it, no other sees.
        let plan = JobPlan { job: JobId(Uuid::new_v4()), attempt: 1, place: Place::Sandbox, limits: Limits::default() };
        let mut place = self.workspace.setup_job(plan).await.map_err(|error| lost(&error))?;
        let placed = match self.trees.held(&tree) {
            Ok(tree) => place.put_tree(tree, PutTo::JobDirectory).await.map_err(TreeError::from),
            Err(error) => Err(error),
        };
        let answer = match placed.map_err(unreadable) {
            Ok(()) => Ok(ask(provider, asking(Root::Copy(place.directory()))).await),
            Err(verdict) => Err(verdict),
        };
        if let Err(error) = place.cleanup().await {
            tracing::warn!(%error, "a copy of the repository that was made for a source of variables stays behind");
        }
        answer
    }
}

/// A source that fails, fails the run.
pub(super) fn refused(error: ProviderError) -> StepVerdict {
    StepVerdict { fails_run: true, ..StepVerdict::failed(error.to_string(), false) }
}
