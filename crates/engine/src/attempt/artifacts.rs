//! What goes into the job directory before the steps and out of it after them: the repository, artifacts.
//!
//! An artifact holds its output under the output's own name, as `cp -r PATH ARTIFACT/` would put it; restoring copies
//! what it holds into the job directory, or the directory the input names:
//!
//! ```text
//! output path     in the artifact     restored      with path: lib
//! dist/app        app                 app           lib/app
//! dist            dist/…              dist/…        lib/dist/…
//! .               …                   …             lib/…
//! ```

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use executr_api::Artifact;
use executr_executors::contract::{Act, PutTo, Sandbox, TakeFrom};
use executr_spec::Digest;
use executr_spec::workflow::{ArtifactInput, ArtifactOutput};
use executr_tree::wire::{AttemptBlobs, Fetched, RemoteBlobs};

use super::Attempt;
use crate::trees::TreeError;
use crate::verdict::StepVerdict;

impl Attempt<'_> {
    /// The coordinator's blobs, as this attempt has them.
    pub(super) fn remote(&self) -> Arc<dyn RemoteBlobs> {
        Arc::new(AttemptBlobs {
            api: Arc::clone(&self.engine.api),
            fence: self.fence,
            token: self.token.as_ref().to_owned(),
        })
    }

    pub(super) async fn tree(&mut self, digest: Digest, what: &str) -> Result<Arc<Fetched>, StepVerdict> {
        let (engine, remote, deadline) = (self.engine, self.remote(), self.job_deadline());
        let fetched = self.wait_for(engine.trees.fetch(&remote, digest), deadline).await;
        fetched.map_err(StepVerdict::ended_early)?.map_err(|error| refused(what, &error))
    }

    pub(super) async fn put(
        &mut self,
        sandbox: &mut dyn Sandbox,
        tree: &Arc<Fetched>,
        to: PutTo<'_>,
        what: &str,
    ) -> Result<(), StepVerdict> {
        let tree = self.engine.trees.held(tree).map_err(|error| refused(what, &error))?;
        let placed = self.wait_for(sandbox.put_tree(tree, to), self.job_deadline()).await;
        placed.map_err(StepVerdict::ended_early)?.map_err(|error| refused(what, &error.into()))
    }

    /// Puts the job's copy of the repository into its directory.
    pub(super) async fn place_source(&mut self, sandbox: &mut dyn Sandbox) -> Result<(), StepVerdict> {
        let Some(workflow) = self.spec.workflow.as_deref() else { return Ok(()) };
        let Some(source) = workflow.source else { return Ok(()) };
        if self.is_hooked() {
            // It is where its hooks start.
            return Ok(());
        }
        if self.spec.directory.is_some() {
            let message = "a job that runs in a `directory` gets no copy of the repository; leave one of them out";
            return Err(StepVerdict::failed(message, false));
        }
        let what = "the copy of the repository";
        let tree = self.tree(source, what).await?;
        if !workflow.selected.is_empty() {
            return self.put_selected(sandbox, &tree, &workflow.selected).await;
        }
        self.put(sandbox, &tree, PutTo::JobDirectory, what).await
    }

    /// Restores the job's inputs.
    pub(super) async fn restore_inputs(&mut self, sandbox: &mut dyn Sandbox) -> Result<(), StepVerdict> {
        let inputs: &[ArtifactInput] = self.spec.workflow.as_ref().map_or(&[], |workflow| &workflow.inputs);
        for input in inputs {
            let what = format!("input `{}`", input.name);
            let artifact = self.run.and_then(|run| run.artifacts.iter().find(|made| made.name == input.name));
            let Some(artifact) = artifact else {
                let message = format!("{what} isn't there: `{}` didn't make it", input.from);
                return Err(StepVerdict::failed(message, false));
            };
            let path = within(&input.path).ok_or_else(|| leads_out(&what, &input.path))?;
            let tree = self.tree(artifact.tree, &what).await?;
            self.put(sandbox, &tree, PutTo::Artifact { name: &input.name, path: &path }, &what).await?;
            self.pass(sandbox, Act::Restore { name: &input.name, path: &path }).await?;
        }
        Ok(())
    }

    /// Saves the job's outputs.
    pub(super) async fn save_outputs(&mut self, sandbox: &mut dyn Sandbox) -> Result<Vec<Artifact>, StepVerdict> {
        let outputs: &[ArtifactOutput] = self.spec.workflow.as_ref().map_or(&[], |workflow| &workflow.outputs);
        let mut artifacts = Vec::new();
        for output in outputs {
            let what = format!("output `{}`", output.name);
            let path = within(&output.path).ok_or_else(|| leads_out(&what, &output.path))?;
            self.pass(sandbox, Act::Save { name: &output.name, path: &path }).await?;
            let (engine, remote) = (self.engine, self.remote());
            let saving = engine.trees.save(&remote, sandbox, TakeFrom::Artifact { name: &output.name, path: &path });
            let saved = self.wait_for(saving, self.job_deadline()).await.map_err(StepVerdict::ended_early)?;
            let Some(saved) = saved.map_err(|error| refused(&what, &error))? else {
                let message = format!("{what}: no step made `{}`", output.path);
                return Err(StepVerdict::failed(message, true));
            };
            artifacts.push(Artifact {
                name: output.name.clone(),
                tree: saved.digest,
                size: saved.manifest.size(),
                files: saved.manifest.files().count() as u64,
            });
        }
        Ok(artifacts)
    }
}

pub(super) fn refused(what: &str, error: &TreeError) -> StepVerdict {
    let verdict = StepVerdict::failed(format!("{what}: {error}"), !error.is_final());
    StepVerdict { place_lost: error.is_of_a_lost_place(), ..verdict }
}

fn leads_out(what: &str, path: &str) -> StepVerdict {
    StepVerdict::failed(format!("{what}: `{path}` leads out of the job directory; give a path within it"), false)
}

/// A path below the job directory, without `.`; `None` when it leads out of it.
pub(super) fn within(path: &str) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_job_directory() {
        for (path, clean) in [("dist", "dist"), ("./a//b/", "a/b"), ("", ""), (".", "")] {
            assert_eq!(within(path), Some(PathBuf::from(clean)), "{path}");
        }
        assert!(["..", "a/../..", "/etc"].into_iter().all(|path| within(path).is_none()));
    }
}
