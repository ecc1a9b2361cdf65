//! An image that is here and stays while it is held.

use std::fmt;
use std::path::PathBuf;

use bytes::Bytes;
use executr_spec::Digest;
use executr_tree::BlobLease;

/// A pulled image. As long as this lives nothing of it is collected, by any process.
#[derive(Debug)]
pub struct Image {
    /// The digest of its manifest, for this platform.
    pub digest: Digest,
    /// How its maker wants it to be run.
    pub config: ImageConfig,
    /// Its layers, lowest first: directories with the whiteouts of overlay mounts, as the lower directories of one.
    /// Nobody may write to them.
    pub layers: Vec<PathBuf>,
    pub(crate) _lease: BlobLease,
}

/// What an image says about how to run it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// `USER[:GROUP]`, names or numbers; empty for root.
    pub user: String,
    /// The environment, each `NAME=VALUE`.
    pub env: Vec<Bytes>,
    /// Where it starts; empty for `/`.
    pub workdir: String,
    /// What comes before the command.
    pub entrypoint: Vec<String>,
    /// The command, where none is given.
    pub command: Vec<String>,
}

/// What an image is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// As images name it: `amd64`, `arm64`.
    pub architecture: String,
}

impl Platform {
    /// This machine's.
    #[must_use]
    pub fn here() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned() }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}
