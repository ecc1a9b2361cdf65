//! Jobs in containers, of an engine on this machine (Docker or Podman) or without one.
//!
//! - [`options`]: what a workflow says of its containers;
//! - [`host`]: what the worker says: where its engine and its agent are;
//! - [`engine`]: what is asked of an engine; `docker`: one that speaks Docker's API;
//! - [`direct`]: one that is no daemon: crun or runc, run from this process;
//! - `selection`: which engine makes a container;
//! - [`owner`]: whose a container is, and what dead owners left;
//! - [`sweeper`]: the same for who cleans up without a worker;
//! - `registries`: what an engine is told of registries; `pulling`: fetching by Docker's API;
//! - `networks`: one for the containers of each run;
//! - `appearing`: what tells that the agent is there;
//! - `container`: one container with its directories and its agent;
//! - [`workspace`]: a container for all jobs, or one for each.
//!
//! The agent is the container's first process, mounted from this machine as the job directories are, at the paths they
//! have here. So an image needs to hold nothing at all, and all that `local` does with trees, artifacts, files and what
//! steps hand over is done the same way, by the same code: what differs is where its keepers come from.
//!
//! Nothing here pulls an image apart, and no answer is read out of what a program prints.

mod appearing;
mod container;
pub mod direct;
#[cfg(feature = "oci")]
mod docker;
mod engine;
mod host;
mod networks;
mod options;
mod owner;
#[cfg(feature = "oci")]
mod pulling;
#[cfg(feature = "oci")]
mod registries;
mod selection;
mod sweeper;
mod workspace;

pub use engine::{Attached, ContainerEngine, ContainerError, ContainerPlan, Image, Mount, Owned};
pub use host::{AgentProgram, OciHost, OciHostOptions};
pub use options::{Mode, Network, OciOptions, Pull, RegistryLogin, RegistryVariables};
pub use selection::is_own_engine;
pub use sweeper::OciSweeper;
pub use workspace::OciWorkspace;
