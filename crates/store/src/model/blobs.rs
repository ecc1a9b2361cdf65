//! Blobs and uploads.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use executr_spec::{Digest, Timestamp};
use uuid::Uuid;

use crate::{BLOB_CHUNK, StoreError};

/// Bytes and when they were last touched.
#[derive(Clone, Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    touched: Option<Timestamp>,
}

/// All blobs and uploads.
#[derive(Clone, Debug, Default)]
pub(super) struct Blobs {
    uploads: BTreeMap<Uuid, Kept>,
    blobs: BTreeMap<Digest, Kept>,
}

impl Blobs {
    pub(super) fn append(&mut self, upload: Uuid, offset: u64, bytes: &[u8], now: Timestamp) -> Result<(), StoreError> {
        let end = self.uploads.get(&upload).map_or(0, |kept| kept.bytes.len() as u64);
        if offset != 0 && offset != end {
            return Err(StoreError::UploadGap { end, offset });
        }
        let kept = self.uploads.entry(upload).or_default();
        if offset == 0 {
            kept.bytes.clear();
        }
        kept.bytes.extend_from_slice(bytes);
        kept.touched = Some(now);
        Ok(())
    }

    pub(super) fn finish(&mut self, upload: Uuid, digest: Digest, size: u64, now: Timestamp) -> Result<(), StoreError> {
        let upload_size = self.uploads.get(&upload).map(|kept| kept.bytes.len() as u64);
        let known = self.blobs.contains_key(&digest);
        if upload_size.unwrap_or(0) != size && !(known && upload_size.is_none()) {
            return Err(StoreError::UploadGap { end: upload_size.unwrap_or(0), offset: size });
        }
        let bytes = self.uploads.remove(&upload).unwrap_or_default().bytes;
        self.blobs.entry(digest).or_insert(Kept { bytes, touched: None }).touched = Some(now);
        Ok(())
    }

    pub(super) fn drop_upload(&mut self, upload: Uuid) {
        self.uploads.remove(&upload);
    }

    pub(super) fn touch(&mut self, digest: Digest, now: Timestamp) -> Option<u64> {
        let kept = self.blobs.get_mut(&digest)?;
        kept.touched = Some(now);
        Some(kept.bytes.len() as u64)
    }

    pub(super) fn read(&self, digest: Digest, offset: u64) -> Option<Bytes> {
        let bytes = &self.blobs.get(&digest)?.bytes;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let to = from.saturating_add(BLOB_CHUNK).min(bytes.len());
        Some(Bytes::copy_from_slice(&bytes[from..to]))
    }

    pub(super) fn delete(&mut self, before: Timestamp, named: &BTreeSet<Digest>) -> u64 {
        let count = self.uploads.len() + self.blobs.len();
        self.uploads.retain(|_, kept| kept.touched >= Some(before));
        self.blobs.retain(|digest, kept| named.contains(digest) || kept.touched >= Some(before));
        (count - self.uploads.len() - self.blobs.len()) as u64
    }
}
