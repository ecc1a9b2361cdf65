//! Where the layers of an image come from.

use std::any::Any;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use crate::oci::engine::{ContainerError, Image};
use crate::oci::options::Pull;

/// A store of unpacked images.
#[async_trait]
pub trait Images: fmt::Debug + Send + Sync {
    /// An image, fetched when it is to be.
    ///
    /// # Errors
    /// When it can't be had.
    async fn image(&self, name: &str, pull: Pull) -> Result<Layers, ContainerError>;
}

/// An unpacked image.
#[derive(Clone)]
pub struct Layers {
    /// What is known of it.
    pub image: Image,
    /// A directory for each layer, the lowest first, with removals as overlay has them.
    pub directories: Vec<PathBuf>,
    /// Whatever keeps them there.
    pub held: Arc<dyn Any + Send + Sync>,
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layers").field("image", &self.image).field("directories", &self.directories).finish()
    }
}
