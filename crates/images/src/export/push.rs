//! Images pushed into a registry: only what it lacks travels, and what another repository there has is mounted.

use std::sync::Arc;

use bytes::Bytes;
use executr_spec::Digest;
use futures_util::StreamExt as _;
use oci_client::RegistryOperation;
use oci_client::errors::OciDistributionError;
use tokio::io::AsyncReadExt as _;

use crate::access::Access;
use crate::error::ImageError;
use crate::progress::{Progress, Update};
use crate::reference::{Reference, oci_digest};
use crate::registry::{Descriptor, RegistryError, Sources, media_type};
use crate::store::ImageStore;

/// How many blobs are sent at once.
const AT_ONCE: usize = 4;
/// Bytes that are read at once.
const PIECE: usize = 256 * 1024;
/// How often a blob is sent, when the connection breaks.
const TRIES: u32 = 3;

/// What travelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The digest of the manifest, under which it is there now.
    pub digest: Digest,
    /// Blobs that were sent.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that the registry had in another repository.
    pub mounted: usize,
}

/// How a blob got there.
enum Way {
    WasThere,
    Mounted,
    Sent,
}

impl ImageStore {
    /// Pushes the image that is here called `name` to the registry that `target` says, under its tag.
    ///
    /// # Errors
    /// When it isn't here, a layer can't be had, or the registry doesn't take it.
    pub async fn push(
        &self,
        name: &Reference,
        target: &Reference,
        access: &Access,
        progress: &Arc<dyn Progress>,
    ) -> Result<Sent, ImageError> {
        let (known, _) = self.here(name).await?;
        let _lease = self.lease(&known)?;
        let not_here = || ImageError::NotHere { reference: name.to_string() };
        let manifest = self.blocking(name, move |store, _| Ok(store.blobs().read(known.digest)?)).await?;
        let manifest = manifest.ok_or_else(not_here)?;
        let registry = Sources::of(target, access).await?;
        let origin = self.origin(name)?;
        let elsewhere = Sources::of(&origin, access).await?;
        let mut layers = known.manifest.layers.clone();
        layers.sort_by_key(|layer| std::cmp::Reverse((layer.size, layer.digest)));
        layers.dedup();
        let sizes: Vec<_> = layers.iter().map(|layer| (layer.digest, layer.size)).collect();
        progress.update(Update::Resolved { digest: known.digest, layers: &sizes });
        registry.log_in(registry.registry(), RegistryOperation::Push).await?;
        layers.push(known.manifest.config.clone());
        let from = (origin.registry() == target.registry() && origin != *target).then_some(&origin);
        let mut sent = Sent { digest: known.digest, blobs: 0, bytes: 0, mounted: 0 };
        let mut all = futures_util::stream::iter(layers.iter().map(|blob| {
            let (registry, elsewhere) = (&registry, &elsewhere);
            async move {
                let way = self.send(blob, registry, from, elsewhere, progress.as_ref()).await?;
                let was_there = !matches!(way, Way::Sent);
                progress.update(Update::Done { layer: blob.digest, was_there });
                Ok::<_, ImageError>((way, blob.size))
            }
        }))
        .buffer_unordered(AT_ONCE);
        while let Some(done) = all.next().await {
            match done? {
                (Way::WasThere, _) => {}
                (Way::Mounted, _) => sent.mounted += 1,
                (Way::Sent, bytes) => {
                    sent.blobs += 1;
                    sent.bytes += bytes;
                }
            }
        }
        drop(all);
        registry.put_manifest(manifest.into(), media_type_of(&known.manifest.media_type)).await?;
        Ok(sent)
    }

    async fn send(
        &self,
        blob: &Descriptor,
        registry: &Sources,
        from: Option<&Reference>,
        elsewhere: &Sources,
        progress: &dyn Progress,
    ) -> Result<Way, ImageError> {
        if registry.has(blob.digest).await? {
            return Ok(Way::WasThere);
        }
        // What was built here is nowhere else.
        if let Some(from) = from
            && registry.mount(from, blob.digest).await
        {
            return Ok(Way::Mounted);
        }
        self.as_it_travels(blob, elsewhere, progress).await?;
        let mut tries = 1;
        loop {
            let held = self.blobs().hold(blob.digest)?.ok_or_else(|| self.lost(blob.digest))?;
            match registry.send(blob, tokio::fs::File::from_std(held)).await {
                Ok(()) => break,
                Err(error) if error.is_passing && tries < TRIES => {
                    progress.update(Update::Again { why: &error.to_string() });
                    tries += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
        progress.update(Update::Moved { layer: blob.digest, bytes: blob.size });
        Ok(Way::Sent)
    }
}

fn media_type_of(said: &str) -> &'static str {
    if said == media_type::DOCKER_MANIFEST { media_type::DOCKER_MANIFEST } else { media_type::MANIFEST }
}

impl Sources {
    /// Whether the registry has a blob in this repository.
    async fn has(&self, digest: Digest) -> Result<bool, RegistryError> {
        let place = self.registry();
        let asked = format!("say whether it has the blob {}", oci_digest(digest));
        let has = self.client().blob_exists(&place.repository, &oci_digest(digest)).await;
        has.map_err(|error| RegistryError::new(&place.host, &asked, &error))
    }

    /// Has the registry take a blob from another repository it has. It may not want to, or not have it there.
    async fn mount(&self, from: &Reference, digest: Digest) -> bool {
        let place = self.registry();
        self.client().mount_blob(&place.repository, from.as_oci(), &oci_digest(digest)).await.is_ok()
    }

    async fn send(&self, blob: &Descriptor, file: tokio::fs::File) -> Result<(), RegistryError> {
        let place = self.registry();
        let pieces = futures_util::stream::unfold(Some(file), |file| async {
            let mut file = file?;
            let mut piece = Vec::with_capacity(PIECE);
            match (&mut file).take(PIECE as u64).read_to_end(&mut piece).await {
                Ok(0) => None,
                Ok(_) => Some((Ok(Bytes::from(piece)), Some(file))),
                Err(error) => Some((Err(OciDistributionError::from(error)), None)),
            }
        });
        let digest = oci_digest(blob.digest);
        let sent = self.client().push_blob_stream(&place.repository, pieces, &digest, Some(blob.size)).await;
        let asked = format!("take the blob {digest}");
        sent.map(drop).map_err(|error| RegistryError::new(&place.host, &asked, &error))
    }

    async fn put_manifest(&self, bytes: Bytes, kind: &'static str) -> Result<(), RegistryError> {
        let place = self.registry();
        let asked = format!("take the manifest of {}", place.repository.whole());
        let put = self.client().push_manifest_raw(&place.repository, bytes, kind_header(kind)).await;
        put.map(drop).map_err(|error| RegistryError::new(&place.host, &asked, &error))
    }
}

fn kind_header(kind: &'static str) -> reqwest::header::HeaderValue {
    reqwest::header::HeaderValue::from_static(kind)
}
