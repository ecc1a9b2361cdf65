//! A directory in the layout of the Open Container Initiative.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::access::Access;
use crate::error::ImageError;
use crate::progress::Progress;
use crate::reference::{Reference, oci_digest};
use crate::registry::media_type;
use crate::store::{ImageStore, Known};

/// What names an image in such a directory.
const NAME: &str = "org.opencontainers.image.ref.name";

impl ImageStore {
    /// Writes an image of the store into a directory in the OCI layout; under its tag. Other images there stay.
    ///
    /// # Errors
    /// When it isn't here, a layer can't be had, or the directory can't be written.
    pub async fn write_layout(
        &self,
        name: &Reference,
        directory: &Path,
        access: &Access,
        progress: &Arc<dyn Progress>,
    ) -> Result<(), ImageError> {
        let (known, _) = self.here(name).await?;
        let _lease = self.lease(&known)?;
        self.all_as_they_travel(name, &known, access, progress).await?;
        let directory = directory.to_owned();
        self.blocking(name, move |store, name| write(store, name, &known, &directory)).await
    }

    /// What is known of an image that must be here, and its configuration.
    pub(crate) async fn here(&self, name: &Reference) -> Result<(Known, Vec<u8>), ImageError> {
        self.blocking(name, |store, name| {
            let not_here = || ImageError::NotHere { reference: name.to_string() };
            let known = store.known(name)?.ok_or_else(not_here)?;
            let config = store.blobs().read(known.manifest.config.digest)?.ok_or_else(not_here)?;
            Ok((known, config))
        })
        .await
    }
}

fn write(store: &ImageStore, name: &Reference, known: &Known, directory: &Path) -> Result<(), ImageError> {
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(ImageError::export("make the directory", &blobs))?;
    let layers = known.manifest.layers.iter().map(|layer| layer.digest);
    let mut manifest_size = 0;
    for digest in layers.chain([known.manifest.config.digest, known.digest]) {
        let target = blobs.join(digest.to_string());
        let copy = || {
            let held = store.blobs().hold(digest).map_err(io::Error::other)?;
            let mut held = held.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            let length = held.metadata()?.len();
            if fs::metadata(&target).is_ok_and(|there| there.len() == length) {
                return Ok(length);
            }
            let fresh = blobs.join(format!(".{digest}.{}", std::process::id()));
            let mut file = File::create(&fresh)?;
            io::copy(&mut held, &mut file)?;
            file.set_permissions(fs::Permissions::from_mode(0o644))?;
            fs::rename(&fresh, &target)?;
            Ok(length)
        };
        manifest_size = copy().map_err(ImageError::export("write", &target))?;
    }
    let path = directory.join("index.json");
    let read = match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(json!({})),
        Err(error) => Err(error),
    };
    let mut index: Value = read.map_err(ImageError::export("read", &path))?;
    let tag = name.tag().unwrap_or("latest");
    let others = index.get_mut("manifests").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
    let mut manifests: Vec<Value> = others.into_iter().filter(|entry| entry["annotations"][NAME] != tag).collect();
    manifests.push(json!({
        "mediaType": media_type::MANIFEST,
        "digest": oci_digest(known.digest),
        "size": manifest_size,
        "annotations": {NAME: tag},
    }));
    let index = json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": manifests});
    for (name, value) in [("oci-layout", json!({"imageLayoutVersion": "1.0.0"})), ("index.json", index)] {
        let path = directory.join(name);
        let fresh = directory.join(format!(".{name}.{}", std::process::id()));
        let put = || {
            fs::write(&fresh, serde_json::to_vec(&value)?)?;
            fs::rename(&fresh, &path)
        };
        put().map_err(ImageError::export("write", &path))?;
    }
    Ok(())
}
