//! The agent as it is sent to hosts: which one it is, and for what kind of machine.

use std::path::PathBuf;

use bytes::Bytes;
use executr_spec::Digest;

use crate::oci::AgentProgram;

/// The kind of machine this program's agent is for.
pub(super) const SYSTEM: &str = "Linux";
/// And its processor, as `uname -m` says it.
pub(super) const MACHINE: &str = std::env::consts::ARCH;

/// The agent's program on this machine.
#[derive(Clone, Debug)]
pub(super) struct AgentCopy {
    path: PathBuf,
    /// In hexadecimal digits.
    pub(super) digest: String,
}

impl AgentCopy {
    /// Finds it and reads it once.
    pub(super) async fn find(program: &AgentProgram) -> Result<Self, String> {
        let program = program.clone();
        let found = tokio::task::spawn_blocking(move || {
            let path = program.find()?;
            let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok(Self { path, digest: Digest::of(&bytes).to_string() })
        });
        found.await.map_err(|error| error.to_string())?
    }

    /// Its bytes, as they were when it was found.
    pub(super) async fn bytes(&self) -> Result<Bytes, String> {
        let bytes = tokio::fs::read(&self.path).await.map_err(|error| format!("{}: {error}", self.path.display()))?;
        if Digest::of(&bytes).to_string() == self.digest {
            return Ok(bytes.into());
        }
        Err(format!("{} has become another program meanwhile; start executr again", self.path.display()))
    }
}
