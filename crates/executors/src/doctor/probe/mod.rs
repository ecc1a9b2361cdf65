//! Finds out how a machine is. What may hang has a deadline.
//!
//! - `machine`: the user, control groups, the data directory, programs;
//! - `step`: runs one step as `local` would;
//! - `engines`: asks the container engines;
//! - `direct`: mounts a container's root.

mod direct;
#[cfg(feature = "oci")]
mod engines;
mod machine;
mod step;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::facts::{Facts, Local};
use crate::local::KeeperOptions;
use crate::oci::direct::DirectOptions;

/// How long one thing may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where to look: nothing of this is found out here.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Where data is kept. What is tried out there goes again.
    pub data: PathBuf,
    /// A directory in it that nobody else uses, or why there is none.
    pub scratch: Result<PathBuf, String>,
    /// How keepers are started.
    pub keeper: KeeperOptions,
    /// Whether a keeper gets a control group.
    pub group: bool,
    /// Where programs are looked for, as `PATH` has it.
    pub path: OsString,
    /// What `DOCKER_HOST` says.
    pub docker_host: Option<String>,
    /// The sockets to try when it says nothing, in order.
    pub sockets: Vec<PathBuf>,
    /// The agent to put into containers, or why there is none and what to do, behind a semicolon.
    pub agent: Result<PathBuf, String>,
    /// What containers without a daemon take; they aren't looked at without.
    pub direct: Option<DirectOptions>,
    /// What `CONTAINERS_CONF` says.
    pub containers_conf: Option<PathBuf>,
}

/// Finds out everything.
pub async fn probe(surroundings: &Surroundings) -> Facts {
    let (machine, bash, step, direct) = tokio::join!(
        machine::probe(surroundings),
        machine::version(&surroundings.path, "bash"),
        step::probe(surroundings),
        direct::probe(surroundings),
    );
    #[cfg(feature = "oci")]
    let containers = Some(engines::probe(surroundings).await);
    #[cfg(not(feature = "oci"))]
    let containers = None;
    Facts { machine, local: Local { step, group: surroundings.group }, bash, containers, direct }
}
