//! Trees over one stream of bytes, where one side has no directory of blobs.
//!
//! What goes over is a manifest and then the bytes of files, one after another in its order: whoever has the manifest
//! knows how long each is, so nothing stands between them.
//!
//! - [`chunks`]: the stream cut into bounded pieces, compressed where that makes it faster, with an end that shows it
//!   wasn't cut off;
//! - [`contents`]: which files go over, and sending them out of blobs;
//! - [`place`]: taking them into a directory, every file verified;
//! - [`take`]: sending a directory as it stands, read once and by nobody hashed;
//! - [`gather`]: making a tree and its blobs of that.
//!
//! No side holds more of files than some MiB per processor, however large they are; what there are names, sizes and digests of
//! is in memory: about 200 bytes and the path for each file, at most [`MAX_MANIFEST`](crate::MAX_MANIFEST) on the way.

mod chunks;
mod contents;
mod gather;
mod place;
mod take;

use std::io;
use std::path::PathBuf;

use executr_spec::Digest;
use thiserror::Error;

use crate::blob_dir::BlobDirError;
use crate::changes::LookError;
use crate::manifest::ManifestError;
use crate::materialise::MaterialiseError;

pub use chunks::{CHUNK, ChunkReader, ChunkWriter, MAX_CHUNK};
pub use contents::{Wanted, receive_manifest, send_contents, send_manifest};
pub use gather::{Gathered, gather};
pub use place::{place_stream, place_wanted};
pub use take::{Taking, TakingError};

/// Why a tree isn't on the other side.
#[derive(Debug, Error)]
pub enum StreamError {
    /// The stream ended before its end, or the other side went away.
    #[error("the transfer broke off: {0}; repeat it")]
    Cut(#[source] io::Error),
    /// What came is no manifest.
    #[error("what came is no tree: {0}")]
    Manifest(#[from] ManifestError),
    /// A file isn't what its manifest says.
    #[error("the bytes that came for {} are others than the tree says; repeat it", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
    },
    /// The sender lacks something.
    #[error("blob {0} is not there, or damaged; fetch it again")]
    Missing(Digest),
    /// What is asked for is no part of the tree.
    #[error("what is asked for is no part of the tree; begin again")]
    Foreign,
    /// There is more than is wanted.
    #[error("the tree has {found} bytes, more than the {most} allowed; leave something out")]
    TooLarge {
        /// The limit in bytes.
        most: u64,
        /// What there is.
        found: u64,
    },
    /// It can't be put where it should be.
    #[error(transparent)]
    Place(#[from] MaterialiseError),
    /// What is sent can't be read.
    #[error(transparent)]
    Take(#[from] TakingError),
    /// What is sent can't be looked through.
    #[error(transparent)]
    Look(#[from] LookError),
    /// The directory of blobs doesn't do its part.
    #[error(transparent)]
    Blobs(#[from] BlobDirError),
}

/// A thread of a transfer ends only with its work, or by a panic, which goes on here.
fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
