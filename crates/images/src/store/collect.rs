//! Keeping the store within its bounds.

use std::collections::HashSet;
use std::fs;
use std::time::SystemTime;

use executr_spec::Digest;

use super::ImageStore;
use crate::build::made_digest;
use crate::error::ImageError;

/// Something that can be removed.
struct Candidate {
    digest: Digest,
    bytes: u64,
    used: SystemTime,
    is_layer: bool,
}

impl ImageStore {
    /// Removes what was used longest ago until the rest is within bounds; nothing that is leased, and of images built here
    /// what can't be had elsewhere only once they have no name. How many bytes are left.
    ///
    /// # Errors
    /// When the directory can't be read, or something can't be removed.
    pub fn collect(&self) -> Result<u64, ImageError> {
        let layers = self.layers.all()?.into_iter().map(|(digest, facts, used)| Candidate {
            digest,
            // Each entry has an inode, whatever its length.
            bytes: facts.bytes + facts.entries * 256,
            used,
            is_layer: true,
        });
        let blobs = self.blobs.entries()?.into_iter().map(|entry| Candidate {
            digest: entry.digest,
            bytes: entry.size,
            used: entry.used,
            is_layer: false,
        });
        let mut all: Vec<_> = layers.chain(blobs).collect();
        let mut left: u64 = all.iter().map(|candidate| candidate.bytes).sum();
        if left <= self.options.max_bytes {
            return Ok(left);
        }
        all.sort_by_key(|candidate| candidate.used);
        let built = self.built_here()?;
        // Dropped after the leases may be taken again: all that was in a layer takes its time.
        let mut removed = Vec::new();
        let leased = self.blobs.leased()?;
        for candidate in all {
            if left <= self.options.max_bytes {
                break;
            }
            if leased.contains(candidate.digest) || (built.contains(&candidate.digest) && !candidate.is_layer) {
                continue;
            }
            if candidate.is_layer {
                removed.push(self.layers.remove(candidate.digest)?);
            } else if !self.blobs.evict(candidate.digest)? {
                continue;
            }
            left -= candidate.bytes;
        }
        self.forget_notes()?;
        Ok(left)
    }

    /// Blobs of images that were built here and have a name: nobody else may have them.
    fn built_here(&self) -> Result<HashSet<Digest>, ImageError> {
        let mut digests = HashSet::new();
        for record in self.names.all()?.into_iter().filter(|record| record.is_built) {
            if let Some(known) = self.known_as(record.manifest)? {
                digests.extend(known.digests());
            }
        }
        Ok(digests)
    }

    /// Forgets what files became, where that is gone.
    fn forget_notes(&self) -> Result<(), ImageError> {
        let notes = fs::read_dir(&self.built).map_err(ImageError::store("list", &self.built))?;
        for note in notes.flatten() {
            let made = fs::read(note.path()).ok().and_then(|bytes| made_digest(&bytes));
            if made.is_none_or(|digest| !self.blobs.has(digest)) {
                // Another process may have been quicker.
                let _ = fs::remove_file(note.path());
            }
        }
        Ok(())
    }
}
