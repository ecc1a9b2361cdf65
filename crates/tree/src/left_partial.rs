//! Blobs on their way whose bringer died.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use executr_spec::Digest;

use crate::file_lock::FileLock;

/// A part of a blob that nobody brings any more. Nobody else goes on with it while this is held.
#[derive(Debug)]
pub struct LeftPartial {
    path: PathBuf,
    bytes: u64,
    _lock: FileLock,
}

impl LeftPartial {
    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How much of it had come.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Removes it.
    ///
    /// # Errors
    /// When it stays.
    pub fn remove(self) -> io::Result<()> {
        match fs::remove_file(self.path.with_extension("validator")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::remove_file(&self.path)
    }
}

/// The parts of blobs in a directory of blobs that nobody brings now; none where there is no such directory. Makes nothing.
///
/// # Errors
/// When the directory can't be read.
pub fn left_partials(root: &Path) -> io::Result<Vec<LeftPartial>> {
    let entries = match fs::read_dir(root.join(".partial")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut left = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_str().is_none_or(|name| name.parse::<Digest>().is_err()) {
            continue;
        }
        let path = entry.path();
        let Some(lock) = FileLock::try_acquire(&path.with_extension("lock"))? else { continue };
        // It may have become a whole blob meanwhile.
        if let Ok(metadata) = fs::symlink_metadata(&path) {
            left.push(LeftPartial { path, bytes: metadata.len(), _lock: lock });
        }
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob_dir::BlobDir;

    #[test]
    fn only_what_nobody_brings_is_left() {
        let temp = tempfile::tempdir().unwrap();
        assert!(left_partials(&temp.path().join("missing")).unwrap().is_empty());
        let blobs = BlobDir::open(temp.path()).unwrap();
        let [dead, living] = [b"dead", b"live"].map(|content| Digest::of(content));
        let mut partial = blobs.bring(dead).unwrap().unwrap();
        partial.append(b"de").unwrap();
        partial.set_validator("v").unwrap();
        drop(partial);
        let brought = blobs.bring(living).unwrap().unwrap();
        let left = left_partials(temp.path()).unwrap();
        assert_eq!(left.iter().map(LeftPartial::bytes).collect::<Vec<_>>(), [2]);
        assert!(blobs.bring(dead).unwrap().is_none(), "held by who found it");
        for partial in left {
            partial.remove().unwrap();
        }
        assert!(left_partials(temp.path()).unwrap().is_empty());
        assert_eq!(blobs.bring(dead).unwrap().unwrap().length(), 0);
        drop(brought);
    }
}
