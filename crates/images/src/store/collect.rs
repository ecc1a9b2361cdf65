//! Keeping the store within its bounds.

use std::time::SystemTime;

use executr_spec::Digest;

use super::ImageStore;
use crate::error::ImageError;

/// Something that can be removed.
struct Candidate {
    digest: Digest,
    bytes: u64,
    used: SystemTime,
    is_layer: bool,
}

impl ImageStore {
    /// Removes what was used longest ago until the rest is within bounds; nothing that is leased. How many bytes are left.
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
        // Dropped after the leases may be taken again: all that was in a layer takes its time.
        let mut removed = Vec::new();
        let leased = self.blobs.leased()?;
        for candidate in all {
            if left <= self.options.max_bytes {
                break;
            }
            if leased.contains(candidate.digest) {
                continue;
            }
            if candidate.is_layer {
                removed.push(self.layers.remove(candidate.digest)?);
            } else if !self.blobs.evict(candidate.digest)? {
                continue;
            }
            left -= candidate.bytes;
        }
        Ok(left)
    }
}
