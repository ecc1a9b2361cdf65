//! The scripts of a `hooks` executor.

use serde::Deserialize;

/// A hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// Once, before the first job.
    SetupWorkspace,
    /// Once, after the last.
    CleanupWorkspace,
    /// Before a job's first step.
    SetupJob,
    /// For each step.
    Execute,
    /// After a job's last step, whatever happened.
    CleanupJob,
    /// For each output, after the steps.
    SaveArtifact,
    /// For each input, before the steps.
    RestoreArtifact,
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::SetupWorkspace,
        Self::CleanupWorkspace,
        Self::SetupJob,
        Self::Execute,
        Self::CleanupJob,
        Self::SaveArtifact,
        Self::RestoreArtifact,
    ];

    /// The name in the settings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SetupWorkspace => "setup_workspace",
            Self::CleanupWorkspace => "cleanup_workspace",
            Self::SetupJob => "setup_job",
            Self::Execute => "execute",
            Self::CleanupJob => "cleanup_job",
            Self::SaveArtifact => "save_artifact",
            Self::RestoreArtifact => "restore_artifact",
        }
    }
}

/// The settings: a bash script for each hook that does something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HooksOptions {
    /// Sets up what jobs share.
    pub setup_workspace: Option<String>,
    /// Lets go of it.
    pub cleanup_workspace: Option<String>,
    /// Makes a place for a job.
    pub setup_job: Option<String>,
    /// Runs the step at `$EXECUTR_STEP`; by itself when there is no such hook.
    pub execute: Option<String>,
    /// Removes the job's place.
    pub cleanup_job: Option<String>,
    /// Copies `$EXECUTR_ARTIFACT_PATH` of the job into `$EXECUTR_ARTIFACTS_DIR/$EXECUTR_ARTIFACT`.
    pub save_artifact: Option<String>,
    /// The other way round.
    pub restore_artifact: Option<String>,
}

impl HooksOptions {
    /// The script of a hook.
    #[must_use]
    pub fn script(&self, hook: Hook) -> Option<&str> {
        let script = match hook {
            Hook::SetupWorkspace => &self.setup_workspace,
            Hook::CleanupWorkspace => &self.cleanup_workspace,
            Hook::SetupJob => &self.setup_job,
            Hook::Execute => return Some(self.execute.as_deref().unwrap_or("\"$EXECUTR_STEP\"\n")),
            Hook::CleanupJob => &self.cleanup_job,
            Hook::SaveArtifact => &self.save_artifact,
            Hook::RestoreArtifact => &self.restore_artifact,
        };
        script.as_deref().filter(|script| !script.trim().is_empty())
    }
}
