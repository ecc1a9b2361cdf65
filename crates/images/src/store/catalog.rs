//! What is in a store, and taking it away.

use std::collections::HashSet;

use executr_spec::Digest;

use super::ImageStore;
use crate::error::ImageError;
use crate::reference::Reference;

/// An image in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name, in full.
    pub name: String,
    /// The digest of its manifest.
    pub digest: Digest,
    /// How many layers it has.
    pub layers: usize,
    /// Bytes of its layers as they travel.
    pub bytes: u64,
    /// It was built here.
    pub is_built: bool,
    /// It can be run, or sent, without asking anybody.
    pub is_whole: bool,
}

/// What went with a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Layers and other blobs that no other name needs.
    pub blobs: usize,
    /// Somebody uses some of it now: that stays, and is collected later.
    pub is_used: bool,
}

impl ImageStore {
    /// All images that have a name here, by name.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub fn list(&self) -> Result<Vec<Listed>, ImageError> {
        let mut all = Vec::new();
        for record in self.names.all()? {
            let known = self.known_as(record.manifest)?;
            let layers = known.as_ref().map_or(&[][..], |known| &known.manifest.layers);
            let is_here = |digest| self.layers.find(digest).is_some() || self.blobs.has(digest);
            all.push(Listed {
                name: record.name,
                digest: record.manifest,
                layers: layers.len(),
                bytes: layers.iter().map(|layer| layer.size).sum(),
                is_built: record.is_built,
                is_whole: known.is_some() && layers.iter().all(|layer| is_here(layer.digest)),
            });
        }
        Ok(all)
    }

    /// Takes a name away, and all that no other name needs and nobody uses. `None` when there is no such name.
    ///
    /// # Errors
    /// When something can't be read or removed.
    pub fn remove(&self, name: &Reference) -> Result<Option<Removed>, ImageError> {
        let Some(record) = self.names.find(name)? else { return Ok(None) };
        let known = self.known_as(record.manifest)?;
        self.names.forget(name)?;
        let mut removed = Removed::default();
        let Some(known) = known else { return Ok(Some(removed)) };
        let mut needed = HashSet::new();
        for record in self.names.all()? {
            if let Some(known) = self.known_as(record.manifest)? {
                needed.extend(known.digests());
            }
        }
        // Dropped after the leases may be taken again.
        let mut rooms = Vec::new();
        let leased = self.blobs.leased()?;
        let mine: HashSet<_> = known.digests().into_iter().collect();
        for digest in mine.into_iter().filter(|digest| !needed.contains(digest)) {
            if leased.contains(digest) {
                removed.is_used = true;
                continue;
            }
            rooms.push(self.layers.remove(digest)?);
            self.blobs.evict(digest)?;
            removed.blobs += 1;
        }
        Ok(Some(removed))
    }
}
