//! Where the bytes of blobs come from, while a tree is made and afterwards.

use std::io::{self, Read};
use std::sync::Arc;

use executr_spec::Digest;

use crate::manifest::Manifest;

/// Something that has blobs. What it gives need not be what the digest says: whoever takes it verifies.
pub trait BlobSource: Send + Sync {
    /// Opens a blob for reading from its beginning; `None` when it isn't there.
    ///
    /// # Errors
    /// When it is there and can't be read.
    fn open_blob(&self, digest: Digest) -> io::Result<Option<Box<dyn Read + Send>>>;
}

/// A blob of a tree that is being made: where it can be read.
#[derive(Clone)]
pub struct OfferedBlob {
    /// Which.
    pub digest: Digest,
    /// What has it.
    pub source: Arc<dyn BlobSource>,
}

/// A tree that was made, whose blobs are elsewhere.
#[derive(Clone, Debug)]
pub struct MadeTree {
    /// Its digest.
    pub digest: Digest,
    /// What it is.
    pub manifest: Manifest,
    /// The manifest's bytes: the blob that the digest names.
    pub encoded: Vec<u8>,
}
