//! What is asked of a container engine, whichever it is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;

use super::options::{Network, Pull, RegistryLogin};

/// What the agent needs to run steps as other users and to clear up after them. No step has any of these.
pub(super) const CAPABILITIES: [&str; 6] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID"];

/// An engine on this machine.
#[async_trait]
pub trait ContainerEngine: Send + Sync {
    /// An image, fetched when it is to be.
    ///
    /// # Errors
    /// When it can't be had.
    async fn image(&self, name: &str, pull: Pull) -> Result<Image, ContainerError>;

    /// The same, fetched by who one is to be at its registry.
    ///
    /// # Errors
    /// As [`image`](Self::image), and where the engine has logins of its own only.
    async fn image_for(&self, name: &str, pull: Pull, login: Option<&RegistryLogin>) -> Result<Image, ContainerError> {
        if login.is_some() {
            let text = "`registry` takes an engine of a socket; log in with `docker login`, or say `engine: docker`";
            return Err(ContainerError::Settings(text.to_owned()));
        }
        self.image(name, pull).await
    }

    /// Makes and starts a container; its id. What was made of one that can't be started is removed.
    ///
    /// # Errors
    /// When there can be none.
    async fn start(&self, plan: ContainerPlan) -> Result<String, ContainerError>;

    /// Waits until a container has ended; its exit code.
    ///
    /// # Errors
    /// When the engine is gone, or the container is.
    async fn ended(&self, id: &str) -> Result<i64, ContainerError>;

    /// Ends a container at once and removes it; one that isn't there is no error.
    ///
    /// # Errors
    /// When it stays.
    async fn remove(&self, id: &str) -> Result<(), ContainerError>;

    /// The containers, running or not, that have this label.
    ///
    /// # Errors
    /// When the engine is gone.
    async fn labelled(&self, label: &str) -> Result<Vec<Owned>, ContainerError>;

    /// Makes a network with a way out, whose containers find each other by name and are not found from outside of it;
    /// whether this engine has such networks.
    ///
    /// # Errors
    /// When it has, and there can be no other one.
    async fn make_network(&self, name: &str, labels: BTreeMap<String, String>) -> Result<bool, ContainerError> {
        let _ = (name, labels);
        Ok(false)
    }

    /// Removes a network that no container is on; one that isn't there is no error.
    ///
    /// # Errors
    /// When it stays.
    async fn remove_network(&self, name: &str) -> Result<(), ContainerError> {
        let _ = name;
        Ok(())
    }

    /// The networks that have this label, by their names.
    ///
    /// # Errors
    /// When the engine is gone.
    async fn labelled_networks(&self, label: &str) -> Result<Vec<Owned>, ContainerError> {
        let _ = label;
        Ok(Vec::new())
    }
}

/// What is known of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// As whom its programs run, as its maker said; empty is root.
    pub user: String,
    /// Its variables, each `KEY=VALUE`.
    pub env: Vec<Bytes>,
    /// What the engine calls it, where that isn't its name.
    pub called: Option<String>,
}

/// A container to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerPlan {
    /// Its name, which nobody else has.
    pub name: String,
    /// What it is made of.
    pub image: String,
    /// What of this machine's own files it doesn't see, where it is made of them instead of an image.
    pub machine: Option<Vec<PathBuf>>,
    /// As whom steps run in it.
    pub user: String,
    /// Its first process, which runs as root there.
    pub command: Vec<String>,
    /// What it is marked with.
    pub labels: BTreeMap<String, String>,
    /// Directories and files of this machine.
    pub mounts: Vec<Mount>,
    /// Directories in memory, with mount options.
    pub tmpfs: Vec<(String, String)>,
    /// What network it has.
    pub network: Network,
    /// Which one, instead of the engine's own.
    pub attached: Option<Attached>,
    /// Billionths of a processor; 0 is no bound.
    pub nano_cpus: u64,
    /// Bytes; 0 is no bound.
    pub memory: u64,
    /// Processes and threads; 0 is no bound.
    pub pids: u32,
    /// Whether the image's own files can't be written.
    pub read_only: bool,
}

/// Something of this machine in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is.
    pub source: PathBuf,
    /// Where it is there.
    pub target: PathBuf,
    /// It can't be written there.
    pub read_only: bool,
}

/// A place on a network that was made for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The network's name.
    pub network: String,
    /// Under what names others on it find the container.
    pub aliases: Vec<String>,
}

/// A container or network that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// Its id.
    pub id: String,
    /// The value of the label it was found by.
    pub owner: String,
}

/// Why there is no container, or no longer.
#[derive(Debug, Error)]
pub enum ContainerError {
    /// No engine was found.
    #[error(
        "no container engine answers ({tried}); start Docker or Podman, let this user use its socket, or name one with \
         DOCKER_HOST=unix:///PATH or the executor's `engine`"
    )]
    NoEngine {
        /// What was tried, and what came of it.
        tried: String,
    },
    /// An engine that isn't on this machine, or no address at all.
    #[error(
        "the engine `{address}` can't be used: job directories are mounted into containers, so it has to be on this \
         machine; write unix:///PATH"
    )]
    Elsewhere {
        /// As it was given.
        address: String,
    },
    /// The program was built without containers.
    #[error("this program was built without its executor `oci`; build it with the feature `oci`")]
    NotBuilt,
    /// There is no agent for containers.
    #[error("there is no agent to put into containers: {0}")]
    NoAgent(String),
    /// The image can't be had.
    #[error("the image `{image}` can't be had: {message}")]
    Image {
        /// Which.
        image: String,
        /// What the engine said, or what to do.
        message: String,
    },
    /// The engine said no.
    #[error("the container engine can't {what}: {message}")]
    Refused {
        /// What was asked of it.
        what: &'static str,
        /// What it said.
        message: String,
    },
    /// Something in the settings can't be.
    #[error("the executor's settings: {0}")]
    Settings(String),
    /// The container ended before it could be used.
    #[error(
        "the container ended at once ({0}); is its image for this kind of processor, and can it run with these bounds?"
    )]
    Ended(String),
    /// The agent in it can't be reached.
    #[error("the agent in the container doesn't answer; does the engine run on this machine, and see its directories?")]
    Silent,
}
