//! Where the bytes of blobs come from.

use std::io::{self, Read};

use executr_spec::Digest;

/// Something that has blobs. What it gives need not be what the digest says: whoever takes it verifies.
pub trait BlobSource: Send + Sync {
    /// Opens a blob for reading from its beginning; `None` when it isn't there.
    ///
    /// # Errors
    /// When it is there and can't be read.
    fn open_blob(&self, digest: Digest) -> io::Result<Option<Box<dyn Read + Send>>>;
}
