//! Content-addressed blobs and, later, trees of files.
//!
//! - [`BlobDir`]: a directory of blobs, each under its SHA-256. A blob under its name is whole, always;
//! - [`Partial`]: a blob on its way there, which survives the death of who brings it;
//! - [`FileLock`]: what several processes that share a directory agree by.
//!
//! Everything here is synchronous and knows files only: where bytes come from, and who may have them, is decided
//! elsewhere.

mod blob_dir;
mod file_lock;
mod partial;

pub use blob_dir::{BlobDir, BlobDirError, BlobEntry};
pub use file_lock::FileLock;
pub use partial::Partial;
