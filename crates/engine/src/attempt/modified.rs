//! What the job's steps changed, brought to the coordinator as an archive: an artifact of one file.

use executr_api::{Artifact, Outcome};
use executr_executors::contract::Sandbox;

use super::Attempt;
use super::artifacts::refused;
use super::steps::Progress;
use crate::verdict::StepVerdict;

const WHAT: &str = "the modified files";

impl Attempt<'_> {
    /// Whether what the steps change is wanted.
    pub(super) fn wants_modified(&self) -> bool {
        self.spec.workflow.as_ref().is_some_and(|workflow| workflow.modified.is_some())
    }

    /// Notes what is there before the first step that runs.
    pub(super) async fn begin_modified(&mut self, sandbox: &mut dyn Sandbox) -> Result<(), StepVerdict> {
        if !self.wants_modified() || self.modified_begun {
            return Ok(());
        }
        let begun = self.wait_for(sandbox.begin_modified(), self.job_deadline()).await;
        begun.map_err(StepVerdict::ended_early)?.map_err(|error| refused(WHAT, &error.into()))?;
        self.modified_begun = true;
        Ok(())
    }

    /// Brings what the steps changed to the coordinator, whether they ended well or not.
    pub(super) async fn save_modified(&mut self, sandbox: &mut dyn Sandbox, progress: &mut Progress) {
        let ended_well = progress.outcome() == Outcome::Succeeded;
        if !self.modified_begun || !(ended_well || progress.outcome() == Outcome::Failed) || progress.lost_place() {
            return;
        }
        match self.modified(sandbox).await {
            Ok(artifact) => progress.artifacts.push(artifact),
            Err(verdict) if ended_well => progress.verdict = Some((None, verdict)),
            Err(verdict) => {
                let problem = self.masking.text(verdict.message.unwrap_or_default());
                tracing::warn!(job = %self.fence.job, problem, "what a failed job changed isn't kept");
            }
        }
    }

    async fn modified(&mut self, sandbox: &mut dyn Sandbox) -> Result<Artifact, StepVerdict> {
        let Some(wanted) = self.spec.workflow.as_ref().and_then(|workflow| workflow.modified.as_ref()) else {
            return Err(StepVerdict::failed(format!("{WHAT}: nobody wants them"), false));
        };
        let engine = self.engine;
        let failed = |error: &std::io::Error| StepVerdict::failed(format!("{WHAT}: no file for them: {error}"), true);
        let file = engine.trees.temporary_file().map_err(|error| refused(WHAT, &error))?;
        let into = file.try_clone().map_err(|error| failed(&error))?;
        let taken = self.wait_for(sandbox.take_modified(wanted, into), self.job_deadline()).await;
        taken.map_err(StepVerdict::ended_early)?.map_err(|error| refused(WHAT, &error.into()))?;
        let remote = self.remote();
        let saving = engine.trees.save_file(&remote, file, wanted.file_name());
        let saved = self.wait_for(saving, self.job_deadline()).await.map_err(StepVerdict::ended_early)?;
        let saved = saved.map_err(|error| refused(WHAT, &error))?;
        Ok(Artifact {
            name: wanted.name.clone(),
            tree: saved.digest,
            size: saved.manifest.size(),
            files: saved.manifest.files().count() as u64,
        })
    }
}
