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
use executr_executors::contract::{Act, ArtifactPlace, Sandbox};
use executr_spec::Digest;
use executr_spec::workflow::{ArtifactInput, ArtifactOutput};
use executr_tree::SnapshotOptions;
use executr_tree::wire::{AttemptBlobs, Fetched, RemoteBlobs};

use super::{Attempt, lost};
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

    pub(super) async fn put(&mut self, tree: &Arc<Fetched>, target: &Path, what: &str) -> Result<(), StepVerdict> {
        let (engine, deadline) = (self.engine, self.job_deadline());
        let mut placing = engine.trees.place(tree, target).map_err(|error| refused(what, &error))?;
        match self.wait_for(placing.done(), deadline).await {
            Ok(placed) => placed.map_err(|error| refused(what, &error)),
            Err(ending) => {
                // Whoever cleans up, or comes next, has the directory to himself.
                placing.stop().await;
                Err(StepVerdict::ended_early(ending))
            }
        }
    }

    /// Puts the job's copy of the repository into its directory.
    pub(super) async fn place_source(&mut self, sandbox: &mut dyn Sandbox) -> Result<(), StepVerdict> {
        let Some(source) = self.spec.workflow.as_ref().and_then(|workflow| workflow.source) else { return Ok(()) };
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
        sandbox.make_directory().await.map_err(|error| lost(&error))?;
        self.put(&tree, sandbox.directory(), what).await
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
            sandbox.make_directory().await.map_err(|error| lost(&error))?;
            let (ArtifactPlace::Direct(target) | ArtifactPlace::Staged(target)) =
                sandbox.artifact_place(&input.name, &path);
            let (root, made) = (sandbox.directory().to_owned(), target.clone());
            let making = tokio::task::spawn_blocking(move || make_below(&root, &made)).await;
            making.map_err(std::io::Error::other).flatten().map_err(|error| {
                StepVerdict::failed(format!("{what}: cannot make {}: {error}", target.display()), true)
            })?;
            self.put(&tree, &target, &what).await?;
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
            let named = !path.as_os_str().is_empty();
            self.pass(sandbox, Act::Save { name: &output.name, path: &path }).await?;
            let (path, named, within) = match sandbox.artifact_place(&output.name, &path) {
                // Steps may have put a link in any place, the job directory's own too, and here it leads elsewhere than
                // where they run. A directory of the user's own is where he says.
                ArtifactPlace::Direct(path) => {
                    let directory = sandbox.directory();
                    let above = directory.parent().filter(|_| self.spec.directory.is_none());
                    (path, named, Some(above.unwrap_or(directory).to_owned()))
                }
                ArtifactPlace::Staged(path) => (path, false, None),
            };
            if path.symlink_metadata().is_err() {
                let message = format!("{what}: no step made `{}`", output.path);
                return Err(StepVerdict::failed(message, true));
            }
            let options = SnapshotOptions { named, within, ..SnapshotOptions::everything() };
            let (engine, remote) = (self.engine, self.remote());
            let saved = self.wait_for(engine.trees.save(&remote, &path, &options), self.job_deadline()).await;
            let saved = saved.map_err(StepVerdict::ended_early)?.map_err(|error| refused(&what, &error))?;
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
    StepVerdict::failed(format!("{what}: {error}"), !error.is_final())
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

/// Makes the directories between `root` and `target`, and `target`. No link on the way is followed: it could lead anywhere.
pub(super) fn make_below(root: &Path, target: &Path) -> std::io::Result<()> {
    // What isn't below it by name is a place of the executor's own.
    let Ok(below) = target.strip_prefix(root) else { return std::fs::create_dir_all(target) };
    let mut at = root.to_owned();
    for component in below.components() {
        at.push(component);
        match std::fs::symlink_metadata(&at) {
            Ok(there) if there.is_dir() => {}
            Ok(_) => {
                let text = format!("{} is no directory; a link is not followed", at.display());
                return Err(std::io::Error::new(std::io::ErrorKind::NotADirectory, text));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => std::fs::create_dir(&at)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_not_followed_out_of_the_job_directory() {
        let (place, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = place.path().join("job");
        std::fs::create_dir(&root).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), root.join("link")).unwrap();
        for below in ["link", "link/deeper"] {
            assert!(make_below(&root, &root.join(below)).is_err(), "{below}");
        }
        assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
        make_below(&root, &root.join("a/b")).unwrap();
        assert!(root.join("a/b").is_dir());
    }

    #[test]
    fn paths_stay_below_the_job_directory() {
        for (path, clean) in [("dist", "dist"), ("./a//b/", "a/b"), ("", ""), (".", "")] {
            assert_eq!(within(path), Some(PathBuf::from(clean)), "{path}");
        }
        assert!(["..", "a/../..", "/etc"].into_iter().all(|path| within(path).is_none()));
    }
}
