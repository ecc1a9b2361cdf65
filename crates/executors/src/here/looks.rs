//! What changed in a job directory: two looks at it, compared.

use std::path::{Path, PathBuf};

use executr_tree::{Changes, Manifest, SnapshotOptions, diff, snapshot};

use super::blocking;
use crate::contract::ExecutorError;

/// The last look.
#[derive(Debug, Default)]
pub(crate) struct Looks(Option<Manifest>);

impl Looks {
    /// Looks at a directory; `seen` is a file that remembers what was read, so that the next look is quick.
    pub(crate) async fn note(&mut self, directory: &Path, seen: PathBuf) -> Result<(), ExecutorError> {
        self.0 = Some(look(directory, seen).await?);
        Ok(())
    }

    /// What is different from what was noted; nothing if nothing was.
    pub(crate) async fn changes(&self, directory: &Path, seen: PathBuf) -> Result<Changes, ExecutorError> {
        let Some(before) = &self.0 else { return Ok(Changes::default()) };
        Ok(diff(before, &look(directory, seen).await?))
    }
}

async fn look(directory: &Path, seen: PathBuf) -> Result<Manifest, ExecutorError> {
    let options = SnapshotOptions { stat_cache: Some(seen), ..SnapshotOptions::everything() };
    let directory = directory.to_owned();
    let looked = blocking(move || snapshot(&directory, &options)).await?;
    Ok(executr_tree::MadeTree::from(looked?).manifest)
}
