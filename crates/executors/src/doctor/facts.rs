//! What was found out about a machine. No judgement.

use std::path::PathBuf;

use crate::contract::LimitOffers;

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What is no executor's own.
    pub machine: Machine,
    /// Jobs in directories of this machine.
    pub local: Local,
    /// What bash says its version is.
    pub bash: Option<String>,
    /// Jobs in containers; `None` when this program was built without them.
    pub containers: Option<Containers>,
    /// Containers without a daemon; `None` when nobody asked.
    pub direct: Option<Direct>,
}

/// Containers without a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Direct {
    /// What runs them, tried; or why nothing does.
    pub runtime: Result<PathBuf, NoDirect>,
    /// Whether this user was given others.
    pub others: bool,
}

/// Why containers can't be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoDirect {
    /// There is no program for it.
    NoRuntime,
    /// It was tried, and failed.
    Failed(String),
}

/// The machine, and what its user may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The user's number; 0 is root.
    pub user: u32,
    /// Whether it has `CAP_SYS_RESOURCE`.
    pub may_raise_limits: bool,
    /// Which control groups are mounted.
    pub cgroups: CgroupMounts,
    /// Whether systemd is the machine's first process.
    pub systemd: bool,
    /// Where data is kept.
    pub data: Directory,
    /// How many files a process may have open, and may allow itself; `None` is no bound.
    pub open_files: (Option<u64>, Option<u64>),
    /// What git says its version is.
    pub git: Option<String>,
    /// What sops says its version is.
    pub sops: Option<String>,
}

/// Control groups, as they are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupMounts {
    /// None.
    None,
    /// Version 1 alone.
    V1,
    /// Version 1 for the controllers, and version 2 beside it.
    Hybrid,
    /// Version 2 alone.
    V2,
}

/// A directory to keep things in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Where it is.
    pub path: PathBuf,
    /// Whether a file can be made there, or why not.
    pub writable: Result<(), String>,
    /// Bytes that are left for this user.
    pub free: Option<u64>,
    /// Whether programs there may be started.
    pub runs_programs: bool,
    /// Whether files can share their content (`FICLONE`).
    pub reflink: bool,
}

/// The executor `local`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// That a step ran here, and which limits can be kept; or why none ran.
    pub step: Result<LimitOffers, String>,
    /// Whether a keeper gets a control group to end its jobs by.
    pub group: bool,
}

/// The executor `oci`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Containers {
    /// What `DOCKER_HOST` says.
    pub address: Option<String>,
    /// The sockets that are tried, in order.
    pub sockets: Vec<Socket>,
    /// Whether there is an agent to put into containers, or why not.
    pub agent: Result<(), String>,
    /// The program `podman`.
    pub podman: Option<Podman>,
    /// Why this user can't make user namespaces.
    pub no_user_namespaces: Option<NoUserNamespaces>,
    /// Whether the kernel has overlay file systems.
    pub overlay: bool,
}

/// What forbids user namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoUserNamespaces {
    /// `user.max_user_namespaces` is 0, or the kernel has none.
    None,
    /// `kernel.unprivileged_userns_clone` is 0.
    Debian,
    /// `kernel.apparmor_restrict_unprivileged_userns` is 1.
    AppArmor,
}

/// A socket of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Where it is.
    pub path: PathBuf,
    /// Who answers there.
    pub answer: Result<Engine, NoAnswer>,
}

/// Why nobody answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// There is no such file.
    Missing,
    /// It is another user's, of this group.
    Denied {
        /// Its name, where it has one.
        group: Option<String>,
    },
    /// Nobody listens.
    Deserted,
    /// No answer came in time.
    Silent,
    /// Something else.
    Failed(String),
}

/// What an engine says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// Docker's, or Podman's service.
    pub kind: EngineKind,
    /// Its version.
    pub version: String,
    /// The version of its API.
    pub api: String,
    /// `cgroupfs`, `systemd` or `none`.
    pub cgroup_driver: String,
    /// `1` or `2`.
    pub cgroup_version: String,
    /// What it keeps images by.
    pub storage: String,
    /// What it starts containers by.
    pub runtime: String,
    /// Whether it runs as a user who is not root.
    pub rootless: bool,
}

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// Docker.
    Docker,
    /// Podman.
    Podman,
}

/// Podman's program and what it needs beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Podman {
    /// What it says its version is.
    pub version: String,
    /// What `CONTAINERS_CONF` settles.
    pub settled: ContainersConf,
    /// `netavark` and `aardvark-dns` are there.
    pub names_on_networks: bool,
    /// `newuidmap` and `newgidmap` are there.
    pub id_maps: bool,
    /// This user has numbers to give away in `/etc/subuid`.
    pub sub_ids: bool,
    /// `slirp4netns` or `pasta` is there.
    pub user_network: bool,
}

/// What a `containers.conf` says of that which goes wrong without.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainersConf {
    /// `default_ulimits` is set.
    pub ulimits: bool,
    /// `cgroup_manager`.
    pub cgroup_manager: Option<String>,
    /// `events_logger`.
    pub events_logger: Option<String>,
    /// `runtime`.
    pub runtime: Option<String>,
}

impl ContainersConf {
    /// Reads the few lines that matter out of the file's text.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
            let Some((name, value)) = line.split_once('=') else { continue };
            let value = Some(value.trim().trim_matches(['"', '\'']).to_owned());
            match name.trim() {
                "default_ulimits" => found.ulimits = true,
                "cgroup_manager" => found.cgroup_manager = value,
                "events_logger" => found.events_logger = value,
                "runtime" => found.runtime = value,
                _ => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_read_as_far_as_it_matters() {
        let read = ContainersConf::read(
            "[containers]\ndefault_ulimits = [\"nofile=20000:20000\"]\n[engine]\n# runtime=\"crun\"\n\
             cgroup_manager=\"cgroupfs\"\nevents_logger = 'file'\nnonsense\n",
        );
        let settled = |text: &str| Some(text.to_owned());
        let expected = ContainersConf {
            ulimits: true,
            cgroup_manager: settled("cgroupfs"),
            events_logger: settled("file"),
            runtime: None,
        };
        assert_eq!(read, expected);
    }
}
