//! The directory that one `executr run` has to itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use executr_tree::FileLock;
use uuid::Uuid;

use super::leftovers::{DeadDirectory, dead_directories};
use super::make_directory;
use crate::errors::{Failure, Result};

/// A directory that goes with this value. One whose owner was killed goes with the next run.
#[derive(Debug)]
pub(crate) struct RunDirectory {
    path: PathBuf,
    // Dropped after the directory is removed.
    _lock: FileLock,
}

impl RunDirectory {
    /// Makes a directory in `runs`, and removes what dead runs left there.
    pub(crate) fn make(runs: &Path) -> Result<Self> {
        make_directory(runs)?;
        remove_leftovers(runs);
        Self::beside(runs)
    }

    /// Makes a directory in `runs`, and leaves there what is there.
    pub(crate) fn beside(runs: &Path) -> Result<Self> {
        make_directory(runs)?;
        let path = runs.join(Uuid::now_v7().to_string());
        let lock = FileLock::try_acquire(&lock_of(&path))
            .map_err(|error| Failure::doing(format!("make a directory in {}", runs.display()), error))?;
        let lock = lock.ok_or_else(|| Failure::doing("make a directory of our own", "its name is taken"))?;
        make_directory(&path)?;
        Ok(Self { path, _lock: lock })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// The directories that dead runs left in `runs`.
pub(super) fn left_in(runs: &Path) -> io::Result<Vec<DeadDirectory>> {
    dead_directories(runs, "run directory")
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        // What stays behind is removed by the next run.
        drop(fs::remove_dir_all(&self.path));
    }
}

/// The lock lies beside its directory, so that both can go while it is held.
fn lock_of(directory: &Path) -> PathBuf {
    directory.with_extension(LOCK)
}

pub(super) const LOCK: &str = "lock";

fn remove_leftovers(runs: &Path) {
    let Ok(entries) = fs::read_dir(runs) else { return };
    let locks =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.extension().is_some_and(|e| e == LOCK));
    for path in locks {
        if let Ok(Some(_lock)) = FileLock::try_acquire(&path) {
            drop(fs::remove_dir_all(path.with_extension("")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dead_runs_left_is_removed_and_living_ones_are_let_be() {
        let runs = tempfile::tempdir().expect("a directory");
        let living = RunDirectory::make(runs.path()).expect("a directory");
        let dead = runs.path().join("dead");
        fs::create_dir_all(dead.join("deeper")).expect("writable");
        fs::write(lock_of(&dead), "").expect("writable");
        let next = RunDirectory::make(runs.path()).expect("a directory");
        assert!(living.path().exists() && next.path().exists() && !dead.exists() && !lock_of(&dead).exists());
        drop((living, next));
        assert_eq!(fs::read_dir(runs.path()).expect("readable").count(), 0);
    }
}
