//! The sweeping contract: what dead processes left on a machine, found and removed.
//!
//! Whatever an executor makes bears its owner's mark: a lock that its process holds, or a name or label that says which
//! process it is of. A [`Sweeper`] finds what bears the mark of a dead one and nothing else. What it finds it keeps from
//! others, by that same lock where there is one, until the [`Leftover`] is removed or dropped; dropped, it stays as it was.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use thiserror::Error;

/// Looks for one kind of things.
#[async_trait]
pub trait Sweeper: Send + Sync {
    /// What dead processes left. That there is no place to look in is no error.
    ///
    /// # Errors
    /// When there is a place and it can't be looked into.
    async fn find(&self) -> Result<Vec<Box<dyn Leftover>>, SweepError>;
}

/// Something that a dead process left.
#[async_trait]
pub trait Leftover: Send {
    /// What it is, in two words.
    fn kind(&self) -> &'static str;

    /// Which one.
    fn name(&self) -> String;

    /// How much it takes on the disk; `None` where it takes nothing there, or that can't be told.
    fn bytes(&self) -> Option<u64>;

    /// Removes it.
    ///
    /// # Errors
    /// When it, or a part of it, stays.
    async fn remove(self: Box<Self>) -> Result<(), SweepError>;
}

/// What stays, and why.
#[derive(Debug, Error)]
pub enum SweepError {
    /// A place can't be looked into.
    #[error("cannot look for leftovers in {}: {source}; run this as the user whose directory it is", path.display())]
    Look {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something can't be removed.
    #[error("{name} stays: {problem}")]
    Stays {
        /// What.
        name: String,
        /// Why, and what to do where that is known.
        problem: String,
    },
}

impl SweepError {
    /// An error of the system on removing `name`.
    pub fn stays(name: impl Into<String>, error: &io::Error) -> Self {
        let advice = match error.kind() {
            io::ErrorKind::PermissionDenied => "; it is another user's: run this as them, or as root",
            _ => "",
        };
        Self::Stays { name: name.into(), problem: format!("{error}{advice}") }
    }
}

/// Bytes in a file, or in all files below a directory. Links are not followed.
#[must_use]
pub fn size(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    if !metadata.is_dir() {
        return metadata.len();
    }
    fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size(&entry.path())).sum()
}
