//! Bringing an image here.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use executr_spec::Digest;
use executr_tree::BlobLease;
use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use super::layers::Expected;
use super::names::Record;
use super::{ImageStore, Pull};
use crate::access::Access;
use crate::error::ImageError;
use crate::image::Image;
use crate::layer::Chunks;
use crate::progress::{Progress, Update};
use crate::reference::Reference;
use crate::registry::{Configuration, Descriptor, Manifest, Parsed, Sources, parse};

/// How many layers are fetched at once.
const AT_ONCE: usize = 4;
/// How many pieces of a layer wait for its unpacking.
const PIECES: usize = 64;
/// How often it is looked whether another process has unpacked a layer.
const LOOK: Duration = Duration::from_millis(50);

/// What an image is made of.
pub(crate) struct Known {
    pub(crate) digest: Digest,
    pub(crate) manifest: Manifest,
    pub(crate) configuration: Configuration,
}

impl Known {
    /// All that must stay while it is used.
    pub(super) fn digests(&self) -> Vec<Digest> {
        let layers = self.manifest.layers.iter().map(|layer| layer.digest);
        [self.digest, self.manifest.config.digest].into_iter().chain(layers).collect()
    }

    fn layers(&self) -> Vec<Expected> {
        let diff_ids = self.configuration.diff_ids();
        let expected =
            |(layer, diff_id): (&Descriptor, Digest)| Expected { digest: layer.digest, size: layer.size, diff_id };
        self.manifest.layers.iter().zip(diff_ids).map(expected).collect()
    }
}

impl ImageStore {
    /// An image, brought here where `pull` allows and demands it. Layers are fetched beside each other and unpacked as they
    /// come; those that are here, for whichever image and process, are not fetched again.
    ///
    /// # Errors
    /// When it can't be had, is broken or hostile, or not for this machine.
    pub async fn pull(
        &self,
        reference: &Reference,
        access: &Access,
        pull: Pull,
        progress: &Arc<dyn Progress>,
    ) -> Result<Image, ImageError> {
        let known = match pull {
            Pull::Always => None,
            Pull::Missing | Pull::Never => self.blocking(reference, Self::known).await?,
        };
        if let Some(known) = known {
            let lease = self.blobs.lease(&known.digests())?;
            let layers = known.layers();
            let is_here = |layer: &Expected| self.layers.find(layer.digest).is_some() || self.blobs.has(layer.digest);
            if layers.iter().all(is_here) {
                self.all_layers(&known, None, progress).await?;
                return self.blocking(reference, move |store, _| store.settled(known, lease)).await;
            }
        }
        if pull == Pull::Never {
            return Err(ImageError::NotHere { reference: reference.to_string() });
        }
        let sources = Arc::new(Sources::of(reference, access).await?);
        let (digest, manifest) = self.resolve(reference, &sources, progress.as_ref()).await?;
        self.bring(reference, digest, manifest, &sources, progress).await
    }

    /// Runs what waits for the disk where that holds nobody up.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        reference: &Reference,
        work: impl FnOnce(&Self, &Reference) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError> {
        let (store, reference) = (self.clone(), reference.clone());
        let done = tokio::task::spawn_blocking(move || work(&store, &reference)).await;
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    /// What is known here of an image; nothing when not all of its description is here.
    pub(crate) fn known(&self, reference: &Reference) -> Result<Option<Known>, ImageError> {
        let Some(record) = self.names.find(reference)? else { return Ok(None) };
        self.known_as(record.manifest)
    }

    /// What is known here of the image with this manifest.
    pub(super) fn known_as(&self, digest: Digest) -> Result<Option<Known>, ImageError> {
        let Some(bytes) = self.blobs.read(digest)? else { return Ok(None) };
        let Ok(Parsed::Image(manifest)) = parse(&bytes, &self.options.platform) else { return Ok(None) };
        let Some(bytes) = self.blobs.read(manifest.config.digest)? else { return Ok(None) };
        let Ok(configuration) = Configuration::parse(&bytes, manifest.layers.len()) else { return Ok(None) };
        Ok(Some(Known { digest, manifest, configuration }))
    }

    /// An image all of which is here and leased.
    fn taken(&self, known: Known, lease: BlobLease) -> Result<Image, ImageError> {
        let digests = known.digests();
        let now = SystemTime::now();
        for digest in &digests[..2] {
            self.blobs.touch(*digest, now)?;
        }
        self.layers.touch(&digests[2..], now);
        let find = |digest: &Digest| self.layers.find(*digest).ok_or_else(|| self.lost(*digest));
        let layers = digests[2..].iter().map(find).collect::<Result<_, _>>()?;
        Ok(Image { digest: known.digest, config: known.configuration.running(), layers, _lease: lease })
    }

    pub(crate) fn lost(&self, layer: Digest) -> ImageError {
        let source = std::io::Error::from(std::io::ErrorKind::NotFound);
        ImageError::Store { action: "find a layer in", path: self.root.join("layers").join(layer.to_string()), source }
    }

    /// The manifest a name stands for on this platform, from its registry.
    async fn resolve(
        &self,
        reference: &Reference,
        sources: &Sources,
        progress: &dyn Progress,
    ) -> Result<(Digest, (Manifest, Bytes)), ImageError> {
        let malformed = |why| ImageError::Malformed { reference: reference.to_string(), why };
        let mut at = None;
        // A name, an index, an image: no more steps than that.
        for _ in 0..2 {
            let (bytes, digest) = sources.manifest(at, progress).await?;
            match parse(&bytes, &self.options.platform).map_err(malformed)? {
                Parsed::Image(manifest) => return Ok((digest, (manifest, bytes))),
                Parsed::Index(digest) => at = Some(digest),
                Parsed::Others(offered) => return Err(self.not_for_here(reference, offered)),
            }
        }
        Err(malformed("its index names another index".to_owned()))
    }

    fn not_for_here(&self, reference: &Reference, offered: Vec<String>) -> ImageError {
        let wanted = self.options.platform.to_string();
        ImageError::Platform { reference: reference.to_string(), wanted, offered }
    }

    async fn bring(
        &self,
        reference: &Reference,
        digest: Digest,
        (manifest, manifest_bytes): (Manifest, Bytes),
        sources: &Arc<Sources>,
        progress: &Arc<dyn Progress>,
    ) -> Result<Image, ImageError> {
        let (config_bytes, configuration) =
            self.configuration(reference, &manifest, sources, progress.as_ref()).await?;
        let known = Known { digest, manifest, configuration };
        let sizes: Vec<_> = known.manifest.layers.iter().map(|layer| (layer.digest, layer.size)).collect();
        progress.update(Update::Resolved { digest, layers: &sizes });
        // Before it is looked what is here: from now on that stays.
        let lease = self.blobs.lease(&known.digests())?;
        self.all_layers(&known, Some(sources), progress).await?;
        let name = reference.to_string();
        self.blocking(reference, move |store, _| {
            store.keep(known.manifest.config.digest, &config_bytes)?;
            store.keep(digest, &manifest_bytes)?;
            store.names.note(&Record { name, manifest: digest, is_built: false, base: None })?;
            store.settled(known, lease)
        })
        .await
    }

    /// An image whose layers have all just come: on the disk, and the rest within bounds.
    fn settled(&self, known: Known, lease: BlobLease) -> Result<Image, ImageError> {
        self.layers.settle(&known.digests()[2..])?;
        let image = self.taken(known, lease)?;
        // With the lease held, nothing of this image goes.
        self.collect()?;
        Ok(image)
    }

    /// Sees to it that all layers of an image are here, those of one registry beside each other.
    async fn all_layers(
        &self,
        known: &Known,
        sources: Option<&Arc<Sources>>,
        progress: &Arc<dyn Progress>,
    ) -> Result<(), ImageError> {
        let mut wanted = known.layers();
        wanted.sort_by_key(|layer| layer.digest);
        wanted.dedup();
        // The longest first: in the end nobody waits long for the last.
        wanted.sort_by_key(|layer| std::cmp::Reverse(layer.size));
        let mut all = futures_util::stream::iter(wanted.into_iter().map(|layer| {
            let descriptor = Descriptor { media_type: String::new(), digest: layer.digest, size: layer.size };
            self.layer(layer, descriptor, sources.cloned(), Arc::clone(progress))
        }))
        .buffer_unordered(AT_ONCE);
        while let Some(done) = all.next().await {
            done?;
        }
        Ok(())
    }

    /// What an image is made of, and its configuration, without its layers: from here, else from its registry.
    pub(crate) async fn describe(
        &self,
        reference: &Reference,
        access: &Access,
        progress: &Arc<dyn Progress>,
    ) -> Result<(Known, Vec<u8>), ImageError> {
        let found = self.blocking(reference, |store, reference| {
            let Some(known) = store.known(reference)? else { return Ok(None) };
            Ok(store.blobs.read(known.manifest.config.digest)?.map(|config| (known, config)))
        });
        if let Some(found) = found.await? {
            return Ok(found);
        }
        let sources = Sources::of(reference, access).await?;
        let (digest, (manifest, manifest_bytes)) = self.resolve(reference, &sources, progress.as_ref()).await?;
        let (config, configuration) = self.configuration(reference, &manifest, &sources, progress.as_ref()).await?;
        let known = Known { digest, manifest, configuration };
        let name = reference.to_string();
        self.blocking(reference, move |store, _| {
            store.keep(known.manifest.config.digest, &config)?;
            store.keep(digest, &manifest_bytes)?;
            store.names.note(&Record { name, manifest: digest, is_built: false, base: None })?;
            Ok((known, config.to_vec()))
        })
        .await
    }

    /// An image's configuration: its bytes, and what they say.
    async fn configuration(
        &self,
        reference: &Reference,
        manifest: &Manifest,
        sources: &Sources,
        progress: &dyn Progress,
    ) -> Result<(Bytes, Configuration), ImageError> {
        let malformed = |why| ImageError::Malformed { reference: reference.to_string(), why };
        let bytes = match self.blobs.read(manifest.config.digest)? {
            Some(bytes) if Digest::of(&bytes) == manifest.config.digest => bytes.into(),
            _ => sources.description(&manifest.config, progress).await?,
        };
        let configuration = Configuration::parse(&bytes, manifest.layers.len()).map_err(malformed)?;
        if let Some(platform) = configuration.platform().filter(|platform| *platform != self.options.platform) {
            return Err(self.not_for_here(reference, vec![platform.to_string()]));
        }
        Ok((bytes, configuration))
    }

    /// Keeps a small blob.
    pub(crate) fn keep(&self, digest: Digest, bytes: &[u8]) -> Result<(), ImageError> {
        if self.blobs.has(digest) {
            return Ok(());
        }
        // Whoever else brings it has the same bytes.
        if let Some(mut partial) = self.blobs.bring(digest)? {
            partial.restart()?;
            partial.append(bytes)?;
            partial.commit()?;
        }
        Ok(())
    }

    /// Sees to it that a layer is here.
    async fn layer(
        &self,
        layer: Expected,
        descriptor: Descriptor,
        sources: Option<Arc<Sources>>,
        progress: Arc<dyn Progress>,
    ) -> Result<(), ImageError> {
        let turn = loop {
            if self.layers.find(layer.digest).is_some() {
                progress.update(Update::Done { layer: layer.digest, was_there: true });
                return Ok(());
            }
            match self.layers.turn(layer.digest)? {
                Some(turn) => break turn,
                None => tokio::time::sleep(LOOK).await,
            }
        };
        // Somebody may have had it before.
        if self.layers.find(layer.digest).is_some() {
            progress.update(Update::Done { layer: layer.digest, was_there: true });
            return Ok(());
        }
        let here = self.blobs.hold(layer.digest)?;
        let is_here = here.is_some();
        let sources = match sources {
            None if !is_here => return Err(self.lost(layer.digest)),
            sources => sources,
        };
        let (sender, receiver) = mpsc::channel(PIECES);
        let layers = self.layers.clone();
        let unpacking = tokio::task::spawn_blocking(move || {
            match here {
                Some(file) => layers.unpack(&turn, layer, file)?,
                None => layers.unpack(&turn, layer, Chunks::new(receiver))?,
            }
            drop(turn);
            // Others are unpacked meanwhile: the disk is waited for beside that, not after it.
            layers.settle(&[layer.digest])
        });
        let fetched = match &sources {
            Some(sources) if !is_here => sources.blob(&descriptor, sender, progress.as_ref()).await,
            _ => Ok(()),
        };
        let unpacked = unpacking.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        // Where the bytes didn't come, that they can't be unpacked is no news.
        fetched?;
        unpacked?;
        progress.update(Update::Done { layer: layer.digest, was_there: is_here });
        Ok(())
    }
}
