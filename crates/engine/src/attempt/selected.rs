//! What of the repository a job gets: the selections of its file, one after another.

use std::sync::Arc;

use executr_executors::contract::{PutTo, Sandbox};
use executr_spec::workflow::FileSelection;
use executr_tree::wire::Fetched;
use executr_tree::{Kind, Manifest};

use super::Attempt;
use super::artifacts::refused;
use crate::verdict::StepVerdict;

const WHAT: &str = "the files of the repository";

impl Attempt<'_> {
    /// Puts what is selected of a tree into the job directory.
    ///
    /// # Errors
    /// When something isn't there, or can't be put there.
    pub(super) async fn put_selected(
        &mut self,
        sandbox: &mut dyn Sandbox,
        tree: &Arc<Fetched>,
        selected: &[FileSelection],
    ) -> Result<(), StepVerdict> {
        let part = part(&tree.manifest, selected).map_err(|problem| StepVerdict::failed(problem, false))?;
        let tree = self.engine.trees.held_part(tree, part).map_err(|error| refused(WHAT, &error))?;
        let placed = self.wait_for(sandbox.put_tree(tree, PutTo::JobDirectory), self.job_deadline()).await;
        placed.map_err(StepVerdict::ended_early)?.map_err(|error| refused(WHAT, &error.into()))
    }
}

/// What is selected of a tree.
fn part(tree: &Manifest, selected: &[FileSelection]) -> Result<Manifest, String> {
    for selection in selected {
        let from: std::path::PathBuf = selection.from.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        if !from.as_os_str().is_empty() && tree.get(&from).is_none() {
            return Err(format!(
                "files: the repository has no `{}`; name what it has, and what git doesn't ignore",
                selection.from
            ));
        }
    }
    let part = tree.part(|entry| {
        let is_directory = matches!(entry.kind, Kind::Directory { .. });
        let targets = selected.iter().enumerate();
        targets
            .filter_map(|(rank, selection)| Some((rank, selection.target(&entry.path, is_directory)?)))
            .collect::<Vec<_>>()
    });
    part.map_err(|error| format!("files: what is selected doesn't fit together: {error}"))
}
