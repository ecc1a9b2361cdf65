//! A tree kept ready in a directory, to make job directories of where bytes come from far away.
//!
//! ```text
//! ROOT/tree    the tree
//! ROOT/whole   its manifest, and what each thing looked like; there only while the tree is whole
//! ROOT/lock    held by who uses it
//! ```
//!
//! - here: what there is, and which files of another tree are lacking;
//! - [`delta`]: a manifest as what differs from another one;
//! - [`update`]: making it another tree;
//! - [`copy`]: making a job directory of it.
//!
//! Nobody but this may write in it. A file that somebody changed nevertheless looks different, is never copied, and is got
//! again with the next update.

mod copy;
mod delta;
mod update;

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use executr_spec::Digest;
use rustix::fs::AtFlags;
use thiserror::Error;

use crate::beneath;
use crate::file_lock::FileLock;
use crate::manifest::{Entry, Kind, Manifest};
use crate::stamp::Stamp;
use crate::stream::{StreamError, Wanted};

pub use delta::{apply_delta, delta};

/// A tree in a directory.
#[derive(Debug)]
pub struct Golden {
    root: PathBuf,
    manifest: Manifest,
    /// Of each entry of the manifest, in order; directories have none.
    stamps: Vec<Option<Stamp>>,
    _lock: FileLock,
}

/// Why a golden tree can't be used.
#[derive(Debug, Error)]
pub enum GoldenError {
    /// The system refused.
    #[error("cannot {action} {}: {source}; check that it is writable and has space left", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else uses it.
    #[error("{} is being used by another process; wait for it, or use another directory", path.display())]
    Busy {
        /// Which.
        path: PathBuf,
    },
    /// Somebody wrote in it.
    #[error("{} isn't what it was when it was put there; bring the tree up to date again", path.display())]
    Touched {
        /// What.
        path: PathBuf,
    },
    /// What came isn't what was to come.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

impl From<crate::MaterialiseError> for GoldenError {
    fn from(error: crate::MaterialiseError) -> Self {
        Self::Stream(error.into())
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> GoldenError + use<> {
    let path = path.to_owned();
    move |source| GoldenError::Io { action, path, source }
}

impl Golden {
    /// Opens a golden tree; an empty one where there is none, or none that is whole.
    ///
    /// # Errors
    /// [`GoldenError`].
    pub fn open(root: &Path) -> Result<Self, GoldenError> {
        fs::create_dir_all(root.join("tree")).map_err(failed("make", root))?;
        let lock = FileLock::try_acquire(&root.join("lock")).map_err(failed("lock", root))?;
        let lock = lock.ok_or_else(|| GoldenError::Busy { path: root.to_owned() })?;
        if let Some((manifest, stamps)) = fs::read(root.join("whole")).ok().and_then(|bytes| update::parse(&bytes)) {
            return Ok(Self { root: root.to_owned(), manifest, stamps, _lock: lock });
        }
        // Nobody knows what is in it.
        let tree = root.join("tree");
        fs::remove_dir_all(&tree).map_err(failed("remove", &tree))?;
        fs::create_dir(&tree).map_err(failed("make", &tree))?;
        let manifest = Manifest::outline(Vec::new()).map_err(StreamError::from)?;
        Ok(Self { root: root.to_owned(), manifest, stamps: Vec::new(), _lock: lock })
    }

    /// What it holds. The digests of its packs are zeros.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What names what it holds: see [`Manifest::outline_digest`].
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.manifest.outline_digest()
    }

    fn tree(&self) -> PathBuf {
        self.root.join("tree")
    }

    fn open_tree(&self) -> Result<OwnedFd, GoldenError> {
        let tree = self.tree();
        beneath::open_root(&tree).map_err(failed("open", &tree))
    }

    /// Which files of a tree it lacks.
    ///
    /// # Errors
    /// [`GoldenError`].
    pub fn wanted(&self, manifest: &Manifest) -> Result<Wanted, GoldenError> {
        let held = self.held(manifest)?;
        let mut index = manifest.entries().iter().zip(held).filter_map(|(entry, held)| match entry.kind {
            Kind::File(_) => Some(held.is_some()),
            Kind::Directory { .. } | Kind::Symlink { .. } => None,
        });
        let lacks: Vec<bool> = index.by_ref().map(|held| !held).collect();
        let mut files = manifest.files().zip(lacks).filter(|((_, file), _)| file.size > 0).map(|(_, lacks)| lacks);
        Ok(Wanted::of(manifest, |_, _| files.next().unwrap_or(true)))
    }

    /// Of each entry of a tree what it looks like here, if it is here with the same content and nobody touched it.
    fn held(&self, manifest: &Manifest) -> Result<Vec<Option<Stamp>>, GoldenError> {
        let tree = self.open_tree()?;
        let mut known = self.manifest.entries().iter().zip(&self.stamps).peekable();
        let mut last: Option<(&Path, Option<OwnedFd>)> = None;
        let mut look = |entry: &Entry| {
            while known.next_if(|(known, _)| known.path.components().lt(entry.path.components())).is_some() {}
            let (before, stamp) = known.next_if(|(known, _)| known.path == entry.path)?;
            if !same_bytes(&before.kind, &entry.kind) {
                return None;
            }
            Some(((*stamp)?, before))
        };
        let mut held = Vec::with_capacity(manifest.entries().len());
        for entry in manifest.entries() {
            let found = look(entry).and_then(|(stamp, before)| {
                let above = before.path.parent().unwrap_or(Path::new(""));
                if last.as_ref().is_none_or(|(path, _)| *path != above) {
                    last = Some((above, beneath::open_directory(tree.as_fd(), above).ok()));
                }
                let directory = last.as_ref().and_then(|(_, directory)| directory.as_ref())?;
                let name = before.path.file_name()?;
                let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
                (Stamp::of(&stat) == stamp).then_some(stamp)
            });
            held.push(found);
        }
        Ok(held)
    }
}

/// Whether two things have the same content; their modes may differ.
fn same_bytes(one: &Kind, other: &Kind) -> bool {
    match (one, other) {
        (Kind::File(one), Kind::File(other)) => (one.size, one.digest) == (other.size, other.digest),
        (Kind::Symlink { target: one }, Kind::Symlink { target: other }) => one == other,
        _ => false,
    }
}
