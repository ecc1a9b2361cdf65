//! A blob on its way into a directory of which nobody knows the name yet: it is what its bytes hash to.
//!
//! Unlike a [`Partial`](crate::Partial) it goes with whoever brings it: nobody could go on with it.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use executr_spec::{Digest, Hasher};

use crate::blob_dir::BlobDirError;

/// Tells the blobs apart that this process brings.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// How names of such blobs begin.
pub(crate) const PREFIX: &str = "arriving-";

/// Bytes of a blob. Dropped before it has its name, they are removed.
#[derive(Debug)]
pub(crate) struct Arriving {
    file: Removed,
    hasher: Hasher,
}

/// A blob that has all its bytes, but not its name.
#[derive(Debug)]
pub(crate) struct Arrived {
    file: Removed,
    /// Its name.
    pub(crate) digest: Digest,
}

/// A file that is removed unless it gets another name.
#[derive(Debug)]
struct Removed {
    file: File,
    path: PathBuf,
    is_kept: bool,
}

impl Drop for Removed {
    fn drop(&mut self) {
        if !self.is_kept {
            // What can't be removed is found by its age.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Arriving {
    /// Begins in the directory of blobs on their way.
    pub(crate) fn begin(directory: &std::path::Path) -> Result<Self, BlobDirError> {
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = directory.join(format!("{PREFIX}{}-{number}", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => {
                    return Ok(Self { file: Removed { file, path, is_kept: false }, hasher: Hasher::default() });
                }
                // Of a process of the same number, in another container or before.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(BlobDirError::io("open", &path)(error)),
            }
        }
    }

    /// Takes the next bytes.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), BlobDirError> {
        self.hasher.update(bytes);
        self.file.file.write_all(bytes).map_err(BlobDirError::io("write", &self.file.path))
    }

    /// All bytes are there.
    pub(crate) fn finish(self) -> Result<Arrived, BlobDirError> {
        let permissions = fs::Permissions::from_mode(0o555);
        self.file.file.set_permissions(permissions).map_err(BlobDirError::io("keep", &self.file.path))?;
        Ok(Arrived { file: self.file, digest: self.hasher.finish() })
    }
}

impl Arrived {
    /// Waits until it is on disk.
    pub(crate) fn sync(&self) -> Result<(), BlobDirError> {
        self.file.file.sync_all().map_err(BlobDirError::io("sync", &self.file.path))
    }

    /// Gives it its name. Its bytes must be synced by now; the directory is to be synced after.
    pub(crate) fn name(mut self, target: &std::path::Path) -> Result<(), BlobDirError> {
        fs::rename(&self.file.path, target).map_err(BlobDirError::io("keep", target))?;
        self.file.is_kept = true;
        Ok(())
    }
}
