//! What differs: between two trees, and between a directory and what it once was.
//!
//! - here: what a change is, and finding those between two [`Manifest`]s, where no file is touched;
//! - [`baseline`]: what a directory looked like, a few bytes a file;
//! - [`look`]: comparing a directory with that, by one walk that reads nothing but what looks different;
//! - [`listing`]: the names in one directory;
//! - [`attributes`]: extended attributes, as far as they are compared.

pub(crate) mod attributes;
mod baseline;
mod listing;
mod look;

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use crate::manifest::{Entry, Kind, Manifest};

pub use baseline::Baseline;
pub use look::{LookError, Looked};

/// What became of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum News {
    /// It wasn't there before.
    Added,
    /// It has another kind, content or target.
    Modified,
    /// It is the same but for its permissions or its extended attributes.
    Mode,
    /// It isn't there any more.
    Deleted,
}

/// Something that is different.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Below the root.
    pub path: PathBuf,
    /// What became of it.
    pub news: News,
    /// Whether it is a directory, or was one before it was deleted.
    pub is_directory: bool,
}

/// All that is different, in the order of a manifest. Directories that came or went are named as well as what is in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes(Vec<Change>);

impl Changes {
    /// Puts changes in order.
    #[must_use]
    pub fn new(mut changes: Vec<Change>) -> Self {
        changes.sort_by(|one, other| one.path.components().cmp(other.path.components()));
        Self(changes)
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Change] {
        &self.0
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that tell something the others don't: a directory that came or went only when nothing in it did.
    pub fn told(&self) -> impl Iterator<Item = &Change> {
        self.0.iter().enumerate().filter_map(|(index, change)| {
            let is_all = !change.is_directory
                || matches!(change.news, News::Modified | News::Mode)
                || self.0.get(index + 1).is_none_or(|next| !next.path.starts_with(&change.path));
            is_all.then_some(change)
        })
    }

    /// The paths of [`told`](Self::told) of which this is the news.
    #[must_use]
    pub fn paths(&self, news: News) -> Vec<&Path> {
        self.told().filter(|change| change.news == news).map(|change| change.path.as_path()).collect()
    }
}

/// What is different in `after`.
#[must_use]
pub fn diff(before: &Manifest, after: &Manifest) -> Changes {
    let mut changes = Vec::new();
    let mut note = |entry: &Entry, news| {
        let is_directory = matches!(entry.kind, Kind::Directory { .. });
        changes.push(Change { path: entry.path.clone(), news, is_directory });
    };
    let (mut old, mut new) = (before.entries().iter().peekable(), after.entries().iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return Changes(changes),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.path.components().cmp(new.path.components()),
        };
        match order {
            Ordering::Less => {
                if let Some(old) = old.next() {
                    note(old, News::Deleted);
                }
            }
            Ordering::Greater => {
                if let Some(new) = new.next() {
                    note(new, News::Added);
                }
            }
            Ordering::Equal => {
                if let (Some(old), Some(new)) = (old.next(), new.next())
                    && let Some(news) = compare(&old.kind, &new.kind)
                {
                    note(new, news);
                }
            }
        }
    }
}

fn compare(old: &Kind, new: &Kind) -> Option<News> {
    let modes = match (old, new) {
        (Kind::Directory { mode: old }, Kind::Directory { mode: new }) => (*old, *new),
        // Where the bytes lie isn't what they are.
        (Kind::File(old), Kind::File(new)) if (old.size, old.digest) == (new.size, new.digest) => (old.mode, new.mode),
        (Kind::Symlink { target: old }, Kind::Symlink { target: new }) if old == new => return None,
        _ => return Some(News::Modified),
    };
    (modes.0 != modes.1).then_some(News::Mode)
}
