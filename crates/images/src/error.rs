//! Why an image can't be had.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::access::AccessError;
use crate::build::BuildError;
use crate::layer::LayerError;
use crate::reference::ReferenceError;
use crate::registry::RegistryError;

/// Why an image can't be pulled, built or sent.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The name isn't one.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// Credentials, mirrors or authorities can't be used as they are.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The registry, and all mirrors of it, don't give or take what was asked.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A layer is broken, or would do what no layer may.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// What it is to be built of can't be.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// An engine doesn't take it.
    #[error("the engine at {address} doesn't take {reference}: {why}; {remedy}")]
    Engine {
        /// Where the engine listens.
        address: String,
        /// Which image.
        reference: String,
        /// What it said.
        why: String,
        /// What its user can do.
        remedy: &'static str,
    },
    /// It can't be written where it should be.
    #[error("cannot {action} {}: {source}", path.display())]
    Export {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The image isn't made for this machine.
    #[error("{reference} is not made for {wanted}, only for {}; name an image that is", .offered.join(", "))]
    Platform {
        /// Which image.
        reference: String,
        /// What it should be made for.
        wanted: String,
        /// What it is made for.
        offered: Vec<String>,
    },
    /// What describes the image can't be understood.
    #[error("{reference} can't be used: {why}; its maker has to build it anew")]
    Malformed {
        /// Which image.
        reference: String,
        /// What is wrong.
        why: String,
    },
    /// It isn't here, and it may not be pulled.
    #[error(
        "{reference} is not here and may not be pulled; pull it first (`executr image pull {reference}`) or allow it"
    )]
    NotHere {
        /// Which image.
        reference: String,
    },
    /// The directory of images doesn't do what was asked.
    #[error("cannot {action} {}: {source}; check that it is writable and has space left", path.display())]
    Store {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl ImageError {
    pub(crate) fn store(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Store { action, path: path.to_owned(), source }
    }
}

impl ImageError {
    pub(crate) fn export(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Export { action, path: path.to_owned(), source }
    }
}

impl From<executr_tree::BlobDirError> for ImageError {
    fn from(error: executr_tree::BlobDirError) -> Self {
        match error {
            executr_tree::BlobDirError::Io { action, path, source } => Self::Store { action, path, source },
            mismatch @ executr_tree::BlobDirError::Mismatch { .. } => {
                Self::Store { action: "keep a blob in", path: PathBuf::new(), source: io::Error::other(mismatch) }
            }
        }
    }
}
