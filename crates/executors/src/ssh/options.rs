//! What a workflow says of hosts.

use std::num::NonZeroU32;

use serde::Deserialize;

use super::target::Target;

/// The settings of an executor of kind `ssh`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct SshOptions {
    /// The host, as `ssh` is told: a name of its configuration, of DNS, or an address. Not with `hosts`.
    pub host: Option<String>,
    /// Several of them, for [`Mode::Pool`].
    #[serde(default)]
    pub hosts: Vec<String>,
    /// As whom; what the configuration of `ssh` says by default.
    pub user: Option<String>,
    /// The port; what the configuration of `ssh` says by default, which is 22 unless it says otherwise.
    pub port: Option<u16>,
    /// A private key of the worker's machine to try besides those of its configuration: absolute, or beginning with `~/`.
    pub identity_file: Option<String>,
    /// A configuration that `ssh` reads instead of its own.
    pub config_file: Option<String>,
    /// How jobs share connections.
    #[serde(default)]
    pub mode: Mode,
    /// Where jobs have their directories on the host, and the agent is kept; absolute, or beginning with `~/`.
    pub workspace_dir: Option<String>,
    /// How many jobs of one worker a host runs at a time; as many as come by default.
    pub max_jobs: Option<NonZeroU32>,
}

/// How jobs share connections.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// One connection for all jobs.
    #[default]
    Shared,
    /// A fresh one for each job.
    Dedicated,
    /// One connection for each of several hosts, which take jobs in turn.
    Pool,
}

impl SshOptions {
    /// The hosts it means, each with all there is to know for getting there.
    #[must_use]
    pub fn targets(&self) -> Vec<Target> {
        let hosts = self.host.iter().chain(&self.hosts);
        let target = |host: &String| Target {
            host: host.clone(),
            user: self.user.clone(),
            port: self.port,
            identity_file: self.identity_file.clone(),
            config_file: self.config_file.clone(),
            directory: self.workspace_dir.clone(),
        };
        hosts.map(target).collect()
    }
}
