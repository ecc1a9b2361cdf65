//! What the engine is told about the machine and its operator's will. The engine looks up neither by itself.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Where programs are looked for when the host says nothing.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The surroundings of this process, captured by the command that started it.
#[derive(Clone, Debug, Default)]
pub struct HostContext {
    /// Its environment.
    pub variables: BTreeMap<OsString, OsString>,
    /// Values of secrets, by name, that were given to it for this: `executr run --secret`.
    pub secrets: BTreeMap<String, String>,
    /// The repository of its user, where it runs nobody else's jobs: `env_from` finds its files there.
    pub repository: Option<PathBuf>,
}

impl HostContext {
    /// A variable's value, unless it is absent or empty.
    pub(crate) fn variable(&self, name: &str) -> Option<&[u8]> {
        self.variables.get(std::ffi::OsStr::new(name)).map(|value| value.as_bytes()).filter(|value| !value.is_empty())
    }
}

/// What jobs may ask of this worker beyond a sandbox: `--allow`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// They may run in a directory of this machine they name.
    pub directory: bool,
    /// They may inherit variables.
    pub inherit: Inherit,
    /// They may run programs of this machine, outside any sandbox, for variables.
    pub providers: bool,
    /// They may bring the scripts that set up where they run.
    pub hooks: bool,
    /// They may bring the command that leads to where they run.
    pub command: bool,
    /// They may run in containers.
    pub containers: Containers,
}

/// Which containers jobs may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Containers {
    /// None.
    #[default]
    None,
    /// Of any image, and with nothing of this machine but their own directories.
    Confined,
    /// Also with directories and the network of this machine, and of an engine they name.
    Any,
}

/// Which of the worker's variables jobs may inherit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Inherit {
    /// None.
    #[default]
    Nothing,
    /// All but `EXECUTR_*`, among which are the worker's own secrets.
    AllButOurs,
    /// All: whoever submits jobs is who started the worker.
    All,
}

impl Policy {
    /// For a worker that runs only its own user's jobs.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            directory: true,
            inherit: Inherit::All,
            providers: true,
            hooks: true,
            command: true,
            containers: Containers::Any,
        }
    }
}
