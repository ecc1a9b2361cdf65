//! Trees of files, and the blobs they are made of.
//!
//! - [`Manifest`]: what a tree is; its bytes are described in `docs/trees.md`;
//! - [`snapshot`]: making a tree of a directory or a file, in a git repository of what git would take;
//! - [`materialise`]: putting a tree into a directory;
//! - [`diff`] and [`changes`]: what is different between two trees, or has changed since a tree was put somewhere;
//! - [`BlobDir`]: a directory of blobs, each under its SHA-256. A blob under its name is whole, always;
//! - [`Partial`]: a blob on its way there, which survives the death of who brings it;
//! - [`FileLock`]: what several processes that share a directory agree by.
//!
//! All this is synchronous and knows files only: where bytes come from, and who may have them, is decided elsewhere. With
//! the feature `wire` there is besides `wire`: trees between here and a coordinator; with `archive`, trees as `.tar.zst`.

#[cfg(feature = "archive")]
mod archive;
#[cfg(feature = "stream")]
mod arriving;
mod beneath;
mod blob_dir;
mod blob_lease;
mod changes;
mod file_lock;
#[cfg(feature = "stream")]
pub mod golden;
mod left_partial;
mod manifest;
mod materialise;
#[cfg(feature = "archive")]
mod modified;
mod parallel;
mod partial;
#[cfg(feature = "snapshot")]
mod snapshot;
mod source;
mod stamp;
#[cfg(feature = "stream")]
pub mod stream;
mod watch;
#[cfg(feature = "wire")]
pub mod wire;

#[cfg(feature = "archive")]
pub use archive::{ArchiveError, export};
pub use beneath::{open_directory, open_file, open_root};
pub use blob_dir::{BlobDir, BlobDirError, BlobEntry, Leased};
pub use blob_lease::BlobLease;
pub use changes::{Baseline, Change, Changes, LookError, Looked, News, diff};
pub use file_lock::FileLock;
pub use left_partial::{LeftPartial, left_partials};
pub use manifest::{
    Entry, Extent, FileEntry, Kind, MAX_ENTRIES, MAX_MANIFEST, MAX_NAME, MAX_PATH, MODE_BITS, Manifest, ManifestError,
    Place, SMALL,
};
pub use materialise::{Existing, MaterialiseError, Owner, PlaceAt, Placed, materialise, materialise_unless};
#[cfg(feature = "archive")]
pub use modified::{DELETED, ModifiedError, Packed, Unpacked, pack_modified, unpack_modified};
pub use partial::Partial;
#[cfg(feature = "snapshot")]
pub use snapshot::{LooseBlob, Snapshot, SnapshotError, SnapshotOptions, snapshot, snapshot_telling};
pub use source::{BlobSource, MadeTree, OfferedBlob};
pub use stamp::Stamp;
pub use watch::{Told, Watcher};
