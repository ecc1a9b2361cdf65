//! What a workflow says of its containers.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use executr_spec::{Bytes, Millicores};
use serde::Deserialize;

use super::engine::Mount;

/// The settings of an executor of kind `oci`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct OciOptions {
    /// What containers are made of.
    pub image: String,
    /// Whether jobs have one each.
    #[serde(default)]
    pub mode: Mode,
    /// When the image is fetched.
    #[serde(default)]
    pub pull: Pull,
    /// The engine's socket; the worker's own choice without.
    #[serde(default)]
    pub engine: Option<String>,
    /// As whom steps run: user or user:group, numbers or names of the image; the image's own user without.
    #[serde(default)]
    pub user: Option<String>,
    /// What network they have.
    #[serde(default)]
    pub network: Network,
    /// Processor time of the whole container.
    #[serde(default)]
    pub cpus: Option<Millicores>,
    /// Memory of the whole container.
    #[serde(default)]
    pub memory: Option<Bytes>,
    /// Processes and threads of the whole container.
    #[serde(default)]
    pub pids: Option<u32>,
    /// Whether the image's own files can't be written.
    #[serde(default)]
    pub read_only: bool,
    /// Directories in memory, each `PATH` or `PATH:OPTIONS` as mount(8) has them.
    #[serde(default)]
    pub tmpfs: Vec<String>,
    /// More of this machine's directories, each `SOURCE:TARGET` or `SOURCE:TARGET:ro`.
    #[serde(default)]
    pub mounts: Vec<String>,
    /// Which variables of the worker say who one is at the image's registry.
    #[serde(default)]
    pub registry: Option<RegistryVariables>,
    /// Their values, looked up where the job runs and nowhere else.
    #[serde(skip)]
    pub login: Option<RegistryLogin>,
    /// Variables below all others but the image's.
    #[serde(default)]
    pub container_env: BTreeMap<String, String>,
    /// They are made of this machine's own files, which can't be written, instead of an image.
    #[serde(skip)]
    pub of_machine: bool,
}

/// Names of variables.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct RegistryVariables {
    /// Of the one with the user's name.
    pub username_env: String,
    /// Of the one with the password or token.
    pub password_env: String,
}

/// Who one is at a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryLogin {
    /// The user's name.
    pub username: String,
    /// The password or token.
    pub password: String,
}

impl fmt::Debug for RegistryLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryLogin").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Whether jobs share a container.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// One for all jobs of the executor in a run, a directory for each.
    #[default]
    Shared,
    /// One for each job.
    Isolated,
}

/// When an image is fetched.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Pull {
    /// When the engine doesn't have it.
    #[default]
    Missing,
    /// Before each container.
    Always,
    /// Never.
    Never,
}

/// What network a container has.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Only itself.
    None,
    /// One for the containers of the run, with a way out.
    #[default]
    Bridge,
    /// The machine's.
    Host,
}

impl Network {
    /// Its name in the settings, which engines use too.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Bridge => "bridge",
            Self::Host => "host",
        }
    }
}

impl OciOptions {
    /// A container for each job, of this machine's own files.
    #[must_use]
    pub fn of_machine(network: Network) -> Self {
        let engine = Some("direct".to_owned());
        Self { of_machine: true, mode: Mode::Isolated, engine, network, read_only: true, ..Self::default() }
    }

    /// The directories to mount besides.
    ///
    /// # Errors
    /// With the one that can't be.
    pub fn mounts(&self) -> Result<Vec<Mount>, String> {
        self.mounts.iter().map(|text| mount(text).ok_or_else(|| text.clone())).collect()
    }
}

fn mount(text: &str) -> Option<Mount> {
    let mut parts = text.split(':');
    let (source, target) = (PathBuf::from(parts.next()?), PathBuf::from(parts.next()?));
    let read_only = match parts.next() {
        None | Some("rw") => false,
        Some("ro") => true,
        Some(_) => return None,
    };
    let is_whole = parts.next().is_none() && source.is_absolute() && target.is_absolute();
    is_whole.then_some(Mount { source, target, read_only })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_two_absolute_paths() {
        let read = |text: &str| mount(text).map(|mount| (mount.source, mount.target, mount.read_only));
        assert_eq!(read("/a:/b"), Some(("/a".into(), "/b".into(), false)));
        assert_eq!(read("/a:/b:ro"), Some(("/a".into(), "/b".into(), true)));
        for wrong in ["/a", "a:/b", "/a:b", "/a:/b:z", "/a:/b:ro:x", ""] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
