//! What directories looked like, and what is different now.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use executr_agent_protocol::v1::Failure;
use executr_tree::{Baseline, Changes};

use super::look_failure;

/// What is known of directories: some 80 bytes and a name for each thing in them, for as long as they are there.
#[derive(Default)]
pub(crate) struct Notes(Mutex<HashMap<PathBuf, Arc<Baseline>>>);

impl Notes {
    fn held(&self) -> MutexGuard<'_, HashMap<PathBuf, Arc<Baseline>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a directory looks like, and forgets those that are gone.
    pub(super) fn set(&self, directory: &Path, baseline: Baseline) {
        let mut held = self.held();
        held.retain(|directory, _| std::fs::symlink_metadata(directory).is_ok());
        held.insert(directory.to_owned(), Arc::new(baseline));
    }

    /// Looks at a directory. What the last look saw is not read again.
    pub(crate) fn note(&self, directory: &Path) -> Result<(), Failure> {
        let before = self.held().get(directory).cloned().unwrap_or_default();
        let looked = before.advance(directory).map_err(|error| look_failure(&error))?;
        self.set(directory, looked.baseline);
        Ok(())
    }

    /// What is different since, and notes that.
    pub(crate) fn changes(&self, directory: &Path) -> Result<Changes, Failure> {
        let before = self.held().get(directory).cloned().ok_or_else(|| Failure {
            message: format!("{} was not noted; note it before what changes it", directory.display()),
            ..Failure::default()
        })?;
        let looked = before.advance(directory).map_err(|error| look_failure(&error))?;
        self.set(directory, looked.baseline);
        Ok(looked.changes)
    }

    /// What is different since, and leaves it at that; `None` where nothing was noted, or nobody can say.
    pub(super) fn peek(&self, directory: &Path) -> Option<Changes> {
        let before = self.held().get(directory).cloned()?;
        before.compare(directory).ok()
    }
}
