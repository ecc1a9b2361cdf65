//! What changed in a job directory: what it looked like when it was noted, and one walk over it.

use std::path::Path;

use executr_tree::{Baseline, Changes};

use super::blocking;
use crate::contract::ExecutorError;

/// What the directory looked like, the last time anybody looked.
#[derive(Debug, Default)]
pub(crate) struct Looks(Option<Baseline>);

impl Looks {
    /// Looks at a directory. What the last look saw is not read again.
    pub(crate) async fn note(&mut self, directory: &Path) -> Result<(), ExecutorError> {
        let before = self.0.take().unwrap_or_default();
        let directory = directory.to_owned();
        let looked = blocking(move || before.advance(&directory)).await??;
        self.0 = Some(looked.baseline);
        Ok(())
    }

    /// What is different from what was noted; nothing if nothing was. That is what is noted then.
    pub(crate) async fn changes(&mut self, directory: &Path) -> Result<Changes, ExecutorError> {
        let Some(before) = self.0.take() else { return Ok(Changes::default()) };
        let directory = directory.to_owned();
        let looked = blocking(move || before.advance(&directory)).await??;
        self.0 = Some(looked.baseline);
        Ok(looked.changes)
    }
}
