//! What dead workers left on hosts: their notes say on which.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use super::agent_copy::AgentCopy;
use super::dial::ControlDirectory;
use super::error::{Phase, SshError};
use super::hosts::{SshHostOptions, short};
use super::notes::{self, LeftNote};
use super::script::{self, Directories};
use super::session::Session;
use crate::sweep::{Leftover, SweepError, Sweeper};

/// Finds what dead workers noted.
pub struct SshSweeper {
    options: Arc<SshHostOptions>,
}

impl SshSweeper {
    /// Looks where these options say that notes are.
    #[must_use]
    pub fn new(options: SshHostOptions) -> Self {
        Self { options: Arc::new(options) }
    }
}

#[async_trait]
impl Sweeper for SshSweeper {
    async fn find(&self) -> Result<Vec<Box<dyn Leftover>>, SweepError> {
        let Some(directory) = self.options.notes.clone() else { return Ok(Vec::new()) };
        let left = notes::left(&directory).map_err(|source| SweepError::Look { path: directory.clone(), source })?;
        let found = left.into_iter().map(|note| {
            let (options, directory) = (Arc::clone(&self.options), directory.clone());
            Box::new(LeftOnHost { note, options, directory }) as Box<dyn Leftover>
        });
        Ok(found.collect())
    }
}

struct LeftOnHost {
    note: LeftNote,
    options: Arc<SshHostOptions>,
    /// Of the notes.
    directory: PathBuf,
}

impl LeftOnHost {
    /// Has an agent there end what is left, and remove it; how many directories that were.
    async fn sweep(&self) -> Result<(), SshError> {
        let target = &self.note.target;
        let told = |problem: String| SshError::new(target, Phase::Run, problem, "try again");
        let agent = AgentCopy::find(&self.options.agent).await.map_err(told)?;
        let (_held, path) = short(&self.directory).map_err(|error| told(error.to_string()))?;
        let control = ControlDirectory::new(path).next();
        let Some(directories) = Directories::of(target.directory.as_deref()) else { return Ok(()) };
        let client = &self.options.client;
        let command = script::sweep(&directories, &agent.digest, &self.note.id);
        let mut session = Session::start(client, &control, target, &command)?;
        let mark = session.mark(Phase::Run).await;
        drop(client.end(&control, target).status().await);
        let mark = mark?;
        match (mark.word.as_str(), mark.rest.split_once(' ')) {
            // No agent was ever sent there, or it is gone with all else.
            ("missing", _) | ("swept", None | Some((_, ""))) => Ok(()),
            (_, Some((_, problem))) => Err(told(problem.to_owned())),
            (word, None) => Err(told(format!("it answers `{}`", word.escape_debug()))),
        }
    }
}

#[async_trait]
impl Leftover for LeftOnHost {
    fn kind(&self) -> &'static str {
        "on a host"
    }

    fn name(&self) -> String {
        format!("{} at {}", self.note.id, self.note.target)
    }

    fn bytes(&self) -> Option<u64> {
        None
    }

    async fn remove(self: Box<Self>) -> Result<(), SweepError> {
        if let Err(error) = self.sweep().await {
            return Err(SweepError::Stays { name: self.name(), problem: error.to_string() });
        }
        self.note.remove();
        Ok(())
    }
}
