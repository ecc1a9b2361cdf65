//! An image built.

use std::sync::Arc;

use executr_spec::Digest;
use executr_tree::BlobLease;

use super::layer::{Made, make};
use super::{Recipe, configuration};
use crate::access::Access;
use crate::error::ImageError;
use crate::progress::{Progress, Update};
use crate::reference::Reference;
use crate::registry::{Configuration, Descriptor, Manifest, media_type};
use crate::store::{ImageStore, Known};

/// The type of configurations.
const CONFIGURATION: &str = "application/vnd.oci.image.config.v1+json";

/// An image that was built, in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The digest of its manifest.
    pub digest: Digest,
    /// How many layers it has, those of its base with them.
    pub layers: usize,
    /// How many of its own layers were found made before.
    pub reused: usize,
    /// Bytes of all layers, as they would travel.
    pub bytes: u64,
}

impl ImageStore {
    /// Builds an image and keeps it under a name. Layers whose files haven't changed since they were made here are taken as
    /// they are. Of a base only what describes it is fetched now, if it isn't here.
    ///
    /// # Errors
    /// When the base can't be had, or something can't be read or be part of an image.
    pub async fn build(
        &self,
        name: &Reference,
        recipe: &Recipe,
        access: &Access,
        progress: &Arc<dyn Progress>,
    ) -> Result<Built, ImageError> {
        let base = match &recipe.base {
            Some(base) => Some((base.clone(), self.describe(base, access, progress).await?)),
            None => None,
        };
        let (recipe, progress) = (recipe.clone(), Arc::clone(progress));
        self.blocking(name, move |store, name| build(store, name, &recipe, base, progress.as_ref())).await
    }
}

fn build(
    store: &ImageStore,
    name: &Reference,
    recipe: &Recipe,
    base: Option<(Reference, (Known, Vec<u8>))>,
    progress: &dyn Progress,
) -> Result<Built, ImageError> {
    let malformed = |why| ImageError::Malformed { reference: name.to_string(), why };
    let (made, _held) = layers(store, recipe)?;
    for layer in &made {
        progress.update(Update::Done { layer: layer.descriptor.digest, was_there: layer.was_there });
    }
    let diff_ids: Vec<_> = made.iter().map(|layer| layer.diff_id).collect();
    let base_config = base.as_ref().map(|(_, (_, config))| config.as_slice());
    let config =
        configuration::configuration(base_config, store.platform(), &diff_ids, &recipe.changes).map_err(malformed)?;
    let mut all: Vec<Descriptor> = match &base {
        Some((_, (known, _))) => known.manifest.layers.iter().map(as_oci).collect(),
        None => Vec::new(),
    };
    all.extend(made.iter().map(|layer| layer.descriptor.clone()));
    let config_digest = Digest::of(&config);
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::MANIFEST.to_owned(),
        config: Descriptor { media_type: CONFIGURATION.to_owned(), digest: config_digest, size: config.len() as u64 },
        layers: all,
    };
    let bytes = serde_json::to_vec(&manifest).map_err(|error| malformed(error.to_string()))?;
    let configuration = Configuration::parse(&config, manifest.layers.len()).map_err(malformed)?;
    let known = Known { digest: Digest::of(&bytes), manifest, configuration };
    let _lease = store.lease(&known)?;
    store.keep(config_digest, &config)?;
    store.keep(known.digest, &bytes)?;
    store.note_built(name, known.digest, base.as_ref().map(|(base, _)| base))?;
    store.collect()?;
    Ok(Built {
        digest: known.digest,
        layers: known.manifest.layers.len(),
        reused: made.iter().filter(|layer| layer.was_there).count(),
        bytes: known.manifest.layers.iter().map(|layer| layer.size).sum(),
    })
}

/// The image's own layers, and what keeps them here.
fn layers(store: &ImageStore, recipe: &Recipe) -> Result<(Vec<Made>, BlobLease), ImageError> {
    loop {
        let made = recipe.layers.iter().map(|layer| make(store, layer, recipe.compression));
        let made = made.collect::<Result<Vec<_>, _>>()?;
        let digests: Vec<_> = made.iter().map(|layer| layer.descriptor.digest).collect();
        let held = store.blobs().lease(&digests)?;
        // Until now somebody could collect one that was found.
        if digests.iter().all(|digest| store.blobs().has(*digest)) {
            return Ok((made, held));
        }
    }
}

/// A layer of a base, with the type that manifests of our kind give it.
fn as_oci(layer: &Descriptor) -> Descriptor {
    let media_type = match layer.media_type.as_str() {
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar" => "application/vnd.oci.image.layer.v1.tar",
        other => other,
    };
    Descriptor { media_type: media_type.to_owned(), ..layer.clone() }
}
