//! Layers as they travel: what archives, engines and registries take.

use std::sync::Arc;

use bytes::Bytes;
use executr_tree::Partial;
use tokio::sync::mpsc;

use super::{ImageStore, Known};
use crate::access::Access;
use crate::error::ImageError;
use crate::layer::{LayerError, Refusal};
use crate::progress::{Progress, Update};
use crate::reference::{Reference, oci_digest};
use crate::registry::{Descriptor, Sources};

impl ImageStore {
    /// Sees to it that a layer is here as it travels, fetched from `sources` where it isn't.
    pub(crate) async fn as_it_travels(
        &self,
        layer: &Descriptor,
        sources: &Sources,
        progress: &dyn Progress,
    ) -> Result<(), ImageError> {
        if self.blobs.has(layer.digest) {
            return Ok(());
        }
        let mut partial = loop {
            match self.blobs.bring(layer.digest)? {
                Some(partial) => break partial,
                None => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
            if self.blobs.has(layer.digest) {
                return Ok(());
            }
        };
        let (sender, receiver) = mpsc::channel(16);
        partial.restart()?;
        let writing = tokio::task::spawn_blocking(move || write(partial, receiver));
        let fetched = sources.blob(layer, sender, progress).await;
        let written = writing.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        fetched?;
        written.map_err(|error| match error {
            executr_tree::BlobDirError::Mismatch { expected, found } => LayerError {
                layer: oci_digest(layer.digest),
                entry: None,
                why: Refusal::Digest { expected: oci_digest(expected), found: found.to_string() },
            }
            .into(),
            error => ImageError::from(error),
        })
    }

    /// Sees to it that all layers of an image of this name are here as they travel.
    pub(crate) async fn all_as_they_travel(
        &self,
        name: &Reference,
        known: &Known,
        access: &Access,
        progress: &Arc<dyn Progress>,
    ) -> Result<(), ImageError> {
        let mut sources = None;
        for layer in &known.manifest.layers {
            if self.blobs.has(layer.digest) {
                continue;
            }
            let sources = match &mut sources {
                Some(sources) => sources,
                none => none.insert(Sources::of(&self.origin(name)?, access).await?),
            };
            self.as_it_travels(layer, sources, progress.as_ref()).await?;
            progress.update(Update::Done { layer: layer.digest, was_there: false });
        }
        Ok(())
    }

    /// Where those layers of an image can be had that nobody built here.
    pub(crate) fn origin(&self, name: &Reference) -> Result<Reference, ImageError> {
        let mut at = name.clone();
        // Bases have bases; one that was built upon itself ends it.
        for _ in 0..16 {
            match self.record(&at)?.and_then(|record| record.base) {
                Some(base) => at = base.parse()?,
                None => break,
            }
        }
        Ok(at)
    }
}

fn write(mut partial: Partial, mut receiver: mpsc::Receiver<Bytes>) -> Result<(), executr_tree::BlobDirError> {
    while let Some(bytes) = receiver.blocking_recv() {
        partial.append(&bytes)?;
    }
    partial.commit()
}
