//! What differs: between two trees, and between a tree and the directory it was put into.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use crate::manifest::{Entry, Kind, Manifest};
use crate::materialise::Placed;
use crate::snapshot::{SnapshotError, SnapshotOptions, snapshot_knowing};

/// Paths below the root, each list in the order of a manifest. What became something else is modified; directories count
/// only when they are all of the news: an empty one, or another mode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// There now.
    pub added: Vec<PathBuf>,
    /// There before and now, with another kind, mode, content or target.
    pub modified: Vec<PathBuf>,
    /// There before.
    pub deleted: Vec<PathBuf>,
}

impl Changes {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.deleted.is_empty()
    }
}

/// What is different in `after`.
#[must_use]
pub fn diff(before: &Manifest, after: &Manifest) -> Changes {
    let mut changes = Changes::default();
    let (mut old, mut new) = (before.entries().iter().peekable(), after.entries().iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return changes,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.path.components().cmp(new.path.components()),
        };
        match order {
            Ordering::Less => {
                let entry = old.next();
                let next = old.peek().map(|entry| entry.path.as_path());
                changes.deleted.extend(entry.and_then(|entry| news(entry, next)));
            }
            Ordering::Greater => {
                let entry = new.next();
                let next = new.peek().map(|entry| entry.path.as_path());
                changes.added.extend(entry.and_then(|entry| news(entry, next)));
            }
            Ordering::Equal => {
                if let (Some(old), Some(new)) = (old.next(), new.next())
                    && !same(&old.kind, &new.kind)
                {
                    changes.modified.push(new.path.clone());
                }
            }
        }
    }
}

/// What has changed in `directory` since the tree was put there. Only files that look different are read.
///
/// # Errors
/// [`SnapshotError`] when it can't be looked through.
pub fn changes(manifest: &Manifest, placed: &Placed, directory: &Path) -> Result<Changes, SnapshotError> {
    let known = manifest.entries().iter().zip(&placed.stamps).filter_map(|(entry, stamp)| match &entry.kind {
        Kind::File(file) => Some((entry.path.as_path(), (*stamp)?, file.digest)),
        Kind::Directory { .. } | Kind::Symlink { .. } => None,
    });
    let now = snapshot_knowing(directory, &SnapshotOptions::everything(), known)?;
    Ok(diff(manifest, now.manifest()))
}

/// The path of what came or went, unless the entry after it says it too.
fn news(entry: &Entry, next: Option<&Path>) -> Option<PathBuf> {
    let has_more =
        matches!(entry.kind, Kind::Directory { .. }) && next.is_some_and(|next| next.starts_with(&entry.path));
    (!has_more).then(|| entry.path.clone())
}

fn same(old: &Kind, new: &Kind) -> bool {
    match (old, new) {
        // Where the bytes lie isn't what they are.
        (Kind::File(old), Kind::File(new)) => (old.mode, old.size, old.digest) == (new.mode, new.size, new.digest),
        _ => old == new,
    }
}
