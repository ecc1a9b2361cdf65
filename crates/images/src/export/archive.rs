//! A file as `docker save` writes it: what Docker and Podman load.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use tar::{Builder, EntryType, Header};

use crate::access::Access;
use crate::error::ImageError;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::store::{ImageStore, Known};

impl ImageStore {
    /// Writes an image of the store into a file as `docker save` does.
    ///
    /// # Errors
    /// When it isn't here, a layer can't be had, or the file can't be written.
    pub async fn write_docker_archive(
        &self,
        name: &Reference,
        file: &Path,
        access: &Access,
        progress: &Arc<dyn Progress>,
    ) -> Result<(), ImageError> {
        let (known, config) = self.here(name).await?;
        let _lease = self.lease(&known)?;
        self.all_as_they_travel(name, &known, access, progress).await?;
        let path = file.to_owned();
        self.blocking(name, move |store, name| {
            let mut fresh = path.clone().into_os_string();
            fresh.push(format!(".{}", std::process::id()));
            let write = || {
                let file = BufWriter::with_capacity(256 * 1024, File::create(&fresh)?);
                archive(store, name, &known, &config, file)?.into_inner()?;
                fs::rename(&fresh, &path)
            };
            write().map_err(|error| {
                drop(fs::remove_file(&fresh));
                ImageError::export("write", &path)(error)
            })
        })
        .await
    }
}

/// Writes the archive: the same bytes for the same image.
pub(super) fn archive<W: Write>(
    store: &ImageStore,
    name: &Reference,
    known: &Known,
    config: &[u8],
    into: W,
) -> io::Result<W> {
    let mut builder = Builder::new(into);
    let config_name = format!("{}.json", known.manifest.config.digest);
    put(&mut builder, &config_name, config.len() as u64, config)?;
    let mut layers = Vec::new();
    for layer in &known.manifest.layers {
        let place = format!("{}.tar", layer.digest);
        // One may lie in an image twice.
        if !layers.contains(&place) {
            let held = store.blobs().hold(layer.digest).map_err(io::Error::other)?;
            let held = held.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            put(&mut builder, &place, layer.size, held)?;
        }
        layers.push(place);
    }
    let named = match name.tag() {
        Some(tag) => vec![format!("{}:{tag}", familiar(name))],
        None => Vec::new(),
    };
    let manifest = serde_json::to_vec(&json!([{"Config": config_name, "RepoTags": named, "Layers": layers}]))?;
    put(&mut builder, "manifest.json", manifest.len() as u64, manifest.as_slice())?;
    builder.into_inner()
}

/// What engines call it: Docker leaves its own registry out.
fn familiar(name: &Reference) -> String {
    match (name.registry(), name.repository()) {
        ("docker.io", repository) => repository.strip_prefix("library/").unwrap_or(repository).to_owned(),
        (registry, repository) => format!("{registry}/{repository}"),
    }
}

fn put(builder: &mut Builder<impl Write>, name: &str, size: u64, content: impl io::Read) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(size);
    header.set_mtime(0);
    builder.append_data(&mut header, name, content)
}
