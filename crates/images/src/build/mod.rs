//! Images built of directories, files and static programs, byte for byte the same each time.
//!
//! - `recipe`: what an image is to be built of;
//! - `listing`: what is found where a layer comes from, in one order, and by what it is known to be unchanged;
//! - `archive`: a layer's archive: times, owners and order fixed;
//! - `layer`: a layer made, or found made before;
//! - `configuration`: what the image says about itself, over what its base says;
//! - `program`: whether a program needs nothing beside itself.
//!
//! The same recipe over the same files gives the same digest, on whichever machine and whenever: nothing of the clock, the
//! user, inodes or the order of directories gets into an image.

mod archive;
mod configuration;
mod image;
mod layer;
mod listing;
mod program;
mod recipe;

use std::path::PathBuf;

use thiserror::Error;

pub use image::Built;
pub(crate) use layer::made_digest;
pub use recipe::{Changes, Compression, LayerRecipe, Part, Recipe};

/// Why an image can't be built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// Something can't be read.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It changed while it was read.
    #[error("{} changed while it was read; build again when nobody writes to it", path.display())]
    Changed {
        /// What.
        path: PathBuf,
    },
    /// Something no image can have.
    #[error("{} can't be part of an image: {why}", path.display())]
    Unfit {
        /// What.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A place within the image that is none.
    #[error("`{target}` is no place in an image: {why}; write it like `/opt/app`")]
    Target {
        /// As it was said.
        target: String,
        /// Why.
        why: &'static str,
    },
}

impl BuildError {
    pub(crate) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}
