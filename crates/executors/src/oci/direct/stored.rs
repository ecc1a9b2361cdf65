//! Layers of the image store that all processes of a user share.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use executr_images::{Access, ImageStore, Progress, Silent, StoreOptions};

use super::images::{Images, Layers};
use crate::oci::engine::{ContainerError, Image};
use crate::oci::options::Pull;

/// The store, opened when the first image is asked for.
pub struct StoredImages {
    directory: PathBuf,
    options: StoreOptions,
    access: Access,
    opened: OnceLock<ImageStore>,
    progress: Arc<dyn Progress>,
}

impl StoredImages {
    /// The store in `directory`; what isn't in it is fetched as `access` says.
    #[must_use]
    pub fn new(directory: PathBuf, options: StoreOptions, access: Access) -> Self {
        Self { directory, options, access, opened: OnceLock::new(), progress: Arc::new(Silent) }
    }

    fn store(&self) -> Result<&ImageStore, executr_images::ImageError> {
        if let Some(store) = self.opened.get() {
            return Ok(store);
        }
        let store = ImageStore::open(&self.directory, self.options.clone())?;
        Ok(self.opened.get_or_init(|| store))
    }
}

impl fmt::Debug for StoredImages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredImages").field("directory", &self.directory).finish_non_exhaustive()
    }
}

#[async_trait]
impl Images for StoredImages {
    async fn image(&self, name: &str, pull: Pull) -> Result<Layers, ContainerError> {
        let failed = |message: String| ContainerError::Image { image: name.to_owned(), message };
        let reference = name.parse().map_err(|error: executr_images::ReferenceError| failed(error.to_string()))?;
        let store = self.store().map_err(|error| failed(error.to_string()))?;
        let pull = match pull {
            Pull::Missing => executr_images::Pull::Missing,
            Pull::Always => executr_images::Pull::Always,
            Pull::Never => executr_images::Pull::Never,
        };
        let pulled = store.pull(&reference, &self.access, pull, &self.progress).await;
        let image = pulled.map_err(|error| failed(error.to_string()))?;
        let config = Image { user: image.config.user.clone(), env: image.config.env.clone(), called: None };
        Ok(Layers { image: config, directories: image.layers.clone(), held: Arc::new(image) })
    }
}
