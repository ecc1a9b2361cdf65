//! A lock that is a file: held by one process at a time, given back by its death.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A held lock. Dropped, its file is removed and the next one may have it.
#[derive(Debug)]
pub struct FileLock {
    path: PathBuf,
    file: File,
    stays: bool,
}

impl FileLock {
    /// Takes the lock at `path`, making its file; `None` when somebody living holds it.
    ///
    /// # Errors
    /// When the file can't be made or locked.
    pub fn try_acquire(path: &Path) -> io::Result<Option<Self>> {
        loop {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // Between open and lock its last holder may have removed it: then the lock is on a file without a name,
            // and somebody else may hold the one that has it.
            if is_same(&file, path)? {
                return Ok(Some(Self { path: path.to_owned(), file, stays: false }));
            }
        }
    }

    /// Gives the lock back and lets its file stand, for the next holder to read.
    pub fn leave(mut self) {
        self.stays = true;
    }

    /// The locked file, which its holder may write to.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        if !self.stays {
            // Removed while it is held, so that nobody can hold what is removed. What stays behind locks nobody out.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn is_same(file: &File, path: &Path) -> io::Result<bool> {
    let held = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (held.dev(), held.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_and_leaves_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("lock");
        let first = FileLock::try_acquire(&path).unwrap().expect("free");
        assert!(FileLock::try_acquire(&path).unwrap().is_none());
        drop(first);
        assert!(!path.exists());
        assert!(FileLock::try_acquire(&path).unwrap().is_some());
    }

    #[test]
    fn what_a_dead_holder_left_locks_nobody_out() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("lock");
        fs::write(&path, b"left behind").unwrap();
        FileLock::try_acquire(&path).unwrap().expect("free").leave();
        assert_eq!(fs::read(&path).unwrap(), b"left behind");
        assert!(FileLock::try_acquire(&path).unwrap().is_some());
    }
}
