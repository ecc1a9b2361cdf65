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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// What else is asked of those.
    pub container_rules: ContainerRules,
    /// They may run on other hosts.
    pub hosts: Hosts,
}

/// Which containers a worker that runs some runs: `--allow-image`, `--allow-user`, `--allow-mount`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerRules {
    /// Patterns of images, as [`matches`] has them; any image when there is none.
    pub images: Vec<String>,
    /// Patterns of who steps run as; anybody when there is none.
    pub users: Vec<String>,
    /// Directories of this machine that may be mounted, with all below them.
    pub mounts: Vec<PathBuf>,
}

/// Whether a whole text fits a pattern, in which `*` stands for any text and `?` for any one character.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut read) = (0, 0);
    // Where the last `*` stood, and up to where it reached.
    let mut star = None;
    while read < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(c) if *c == '?' || *c == text[read] => {
                at += 1;
                read += 1;
            }
            _ => {
                let Some((stood, reached)) = star else { return false };
                star = Some((stood, reached + 1));
                at = stood + 1;
                read = reached + 1;
            }
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
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

/// Which other hosts jobs may run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hosts {
    /// None.
    #[default]
    None,
    /// Those that the worker's own configuration of ssh gets it to.
    Configured,
    /// Also with keys and configurations they name.
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
            container_rules: ContainerRules::default(),
            hosts: Hosts::Any,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_for_the_whole_text() {
        for (pattern, text, fits) in [
            ("debian:12", "debian:12", true),
            ("debian:12", "debian:123", false),
            ("r.example/*", "r.example/team/tool:1", true),
            ("r.example/*", "other/r.example/x", false),
            ("*/tool:?", "r.example/tool:1", true),
            ("*/tool:?", "r.example/tool:12", false),
            ("a*b*c", "a-b-b-c", true),
            ("*", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }
}
