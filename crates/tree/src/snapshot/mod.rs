//! Making a tree of a directory or a file as it stands.
//!
//! [`walk`] finds what belongs to it ([`repository`] and [`git_index`] know what git says), [`hashing`] reads what
//! [`stat_cache`] doesn't know. A snapshot copies nothing: it is a [`BlobSource`](crate::BlobSource) whose blobs are read
//! from the files themselves, which whoever takes them verifies.

mod blobs;
mod git_index;
mod hashing;
mod repository;
mod stat_cache;
mod walk;

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use executr_spec::Digest;
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;
use thiserror::Error;

use crate::beneath;
use crate::manifest::{MODE_BITS, Manifest, ManifestError};
use crate::source::MadeTree;
use crate::stamp::Stamp;
use hashing::ReadError;
use stat_cache::{Notes, StatCache};
use walk::{Found, FoundKind};

pub use blobs::LooseBlob;

/// How often a snapshot is begun in which a file changes while it is read.
const TRIES: usize = 4;

/// What belongs to a snapshot.
#[derive(Clone, Debug, Default)]
pub struct SnapshotOptions {
    /// In a git repository only what is tracked or not ignored, without `.git`. Elsewhere, and when false, everything.
    pub git: bool,
    /// The repository's `.git` too.
    pub copy_git: bool,
    /// Files with rules that hold in every repository, as git's `core.excludesFile`.
    pub excludes: Vec<PathBuf>,
    /// Under its own name, as `cp -r PATH TREE/` would put it: the tree is a directory with nothing else in it. Otherwise
    /// the tree is what is at the path.
    pub named: bool,
    /// A directory the path is in, when others fill it: no link on the way from there is followed, wherever it leads.
    pub within: Option<PathBuf>,
    /// Where to keep what is known of the files, so that the next snapshot needn't read them. One file per directory.
    pub stat_cache: Option<PathBuf>,
}

impl SnapshotOptions {
    /// What `copy_repo` copies: tracked files, and untracked ones that aren't ignored.
    #[must_use]
    pub fn repository() -> Self {
        Self { git: true, ..Self::default() }
    }

    /// Everything: what an artifact holds.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }
}

/// Why there is no snapshot.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The system refused.
    #[error("cannot {action} {}: {source}; check that it is there and may be read", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A link could lead anywhere.
    #[error("{} is reached through a link, and none is followed; name where it leads", path.display())]
    Link {
        /// What it is about.
        path: PathBuf,
    },
    /// Something goes on writing.
    #[error("{} changed while it was read, several times; let what writes it finish first", path.display())]
    Changing {
        /// What changed.
        path: PathBuf,
    },
    /// It is neither a file, nor a directory, nor a link.
    #[error("{} is no file, directory or link, and nothing else can be saved", path.display())]
    Special {
        /// What it is about.
        path: PathBuf,
    },
    /// There is too much.
    #[error("there are more than {most} files and directories; leave some out, in a git repository with .gitignore")]
    TooMany {
        /// The limit.
        most: usize,
    },
    /// What was found makes no tree.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

impl SnapshotError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// A tree of files as they stood, and the way to their bytes.
#[derive(Debug)]
pub struct Snapshot {
    manifest: Manifest,
    encoded: Vec<u8>,
    digest: Digest,
    root: Arc<Root>,
    /// Its name below the root, when it is no directory.
    single: Option<PathBuf>,
    /// Which entries each blob is made of.
    index: OnceLock<HashMap<Digest, Vec<usize>>>,
}

/// The directory that what is read is below. Held open: what is put in its place later is not read.
#[derive(Debug)]
struct Root {
    directory: OwnedFd,
    path: PathBuf,
}

impl Snapshot {
    /// The tree.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The manifest's bytes: the blob that the tree's digest names.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// The tree's digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl From<Snapshot> for MadeTree {
    fn from(snapshot: Snapshot) -> Self {
        Self { digest: snapshot.digest, manifest: snapshot.manifest, encoded: snapshot.encoded }
    }
}

/// Makes a tree of the directory, file or link at `path`. A link that `path` ends with isn't followed unless it leads to a
/// directory and `path` ends with `/`.
///
/// # Errors
/// [`SnapshotError`].
pub fn snapshot(path: &Path, options: &SnapshotOptions) -> Result<Snapshot, SnapshotError> {
    begin(path, options, None)
}

/// As [`snapshot`], telling of each blob as soon as it is known, so that it can be sent while others are still being read.
/// It is told from several threads, and again when something changed and is read anew: not every blob told of is one of
/// the tree.
///
/// # Errors
/// [`SnapshotError`].
pub fn snapshot_telling(
    path: &Path,
    options: &SnapshotOptions,
    tell: &(dyn Fn(LooseBlob) + Sync),
) -> Result<Snapshot, SnapshotError> {
    begin(path, options, Some(tell))
}

fn begin(
    path: &Path,
    options: &SnapshotOptions,
    tell: Option<&(dyn Fn(LooseBlob) + Sync)>,
) -> Result<Snapshot, SnapshotError> {
    // The root of a file system has no name.
    let named = options.named && path.file_name().is_some();
    let (root, is_directory) = match &options.within {
        None => reach(path, named)?,
        Some(base) => reach_within(base, path, named)?,
    };
    let job = Job { root: Arc::new(root), path, named, options, tell };
    let mut cache = options.stat_cache.as_deref().map(StatCache::read).unwrap_or_default();
    for _ in 1..TRIES {
        // When something changed, what was read of the others is still good.
        if let Ok(snapshot) = job.attempt(is_directory, &mut cache)? {
            return Ok(snapshot);
        }
    }
    job.attempt(is_directory, &mut cache)?.map_err(|path| SnapshotError::Changing { path })
}

/// Opens the directory in which the snapshot is found: itself, or the one it is in when it stands alone or keeps its name;
/// whether it is a directory itself.
fn reach(path: &Path, named: bool) -> Result<(Root, bool), SnapshotError> {
    let stat = rustix::fs::lstat(path).map_err(|errno| SnapshotError::io("look at", path)(errno.into()))?;
    let is_directory = FileType::from_raw_mode(stat.st_mode).is_dir();
    let root = root_path(path, is_directory && !named)?;
    let directory = beneath::open_root(&root).map_err(SnapshotError::io("open", &root))?;
    Ok((Root { directory, path: root }, is_directory))
}

/// As [`reach`], through no link below `base`.
fn reach_within(base: &Path, path: &Path, named: bool) -> Result<(Root, bool), SnapshotError> {
    let link = || SnapshotError::Link { path: path.to_owned() };
    let refused = |error: io::Error| match Errno::from_io_error(&error) {
        Some(Errno::LOOP | Errno::XDEV | Errno::NOTDIR) => link(),
        _ => SnapshotError::io("open", path)(error),
    };
    let relative = path.strip_prefix(base).map_err(|_| link())?;
    let mut directory = beneath::open_root(base).map_err(SnapshotError::io("open", base))?;
    let mut is_directory = true;
    if let (Some(above), Some(name)) = (relative.parent(), relative.file_name()) {
        directory = beneath::open_directory(directory.as_fd(), above).map_err(refused)?;
        let stat = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| SnapshotError::io("look at", path)(errno.into()))?;
        is_directory = FileType::from_raw_mode(stat.st_mode).is_dir();
        if is_directory && !named {
            directory = beneath::open_directory(directory.as_fd(), Path::new(name)).map_err(refused)?;
        }
    }
    Ok((Root { directory, path: root_path(path, is_directory && !named)? }, is_directory))
}

fn root_path(path: &Path, is_root: bool) -> Result<PathBuf, SnapshotError> {
    let root = if is_root { path } else { path.parent().unwrap_or(Path::new("")) };
    std::path::absolute(root).map_err(SnapshotError::io("find", root))
}

struct Job<'a> {
    root: Arc<Root>,
    path: &'a Path,
    named: bool,
    options: &'a SnapshotOptions,
    tell: Option<&'a (dyn Fn(LooseBlob) + Sync)>,
}

impl Job<'_> {
    /// One try; within, the path of what changed.
    fn attempt(&self, is_directory: bool, cache: &mut StatCache) -> Result<Result<Snapshot, PathBuf>, SnapshotError> {
        let looked = crate::stamp::now();
        let found = match (is_directory, self.named) {
            (true, false) => walk::walk(&self.root.directory, &self.root.path, self.options)?,
            (true, true) => self.named_directory()?,
            (false, _) => vec![self.single()?],
        };
        let known = Mutex::new(HashMap::new());
        let tell = |digest, files: &[usize]| {
            if let Some(tell) = self.tell {
                tell(LooseBlob::new(digest, &self.root, files.iter().map(|index| &found[*index])));
            }
        };
        let outcome = hashing::hash(&self.root.directory, &self.root.path, &found, cache, &known, &tell);
        match outcome {
            Ok(outcome) => {
                let notes = self.notes(&outcome, &found, looked);
                let nameless = !is_directory && !self.named;
                let single = found.first().filter(|_| nameless).map(|found| found.path.clone());
                // Beside the rest: only the next snapshot needs them.
                let write = || {
                    if let (Some(notes), Some(path)) = (notes, &self.options.stat_cache) {
                        notes.write(path);
                    }
                };
                let (manifest, encoded) = std::thread::scope(|scope| {
                    scope.spawn(write);
                    let manifest = outcome.manifest(found)?;
                    let manifest = if nameless { manifest.without_name()? } else { manifest };
                    let encoded = manifest.encode();
                    Ok::<_, ManifestError>((manifest, encoded))
                })?;
                let digest = Digest::of(&encoded);
                let root = Arc::clone(&self.root);
                Ok(Ok(Snapshot { manifest, encoded, digest, root, single, index: OnceLock::new() }))
            }
            Err(ReadError::Changed(index)) => {
                let known = known.into_inner().unwrap_or_else(PoisonError::into_inner);
                for (index, digest) in known {
                    if let Found { path, kind: FoundKind::File(stamp) } = &found[index] {
                        cache.learn(path, *stamp, digest);
                    }
                }
                Ok(Err(self.root.path.join(&found[index].path)))
            }
            Err(ReadError::Failed(error)) => Err(error),
        }
    }

    /// The directory at the path, and all that is in it.
    fn named_directory(&self) -> Result<Vec<Found>, SnapshotError> {
        let name = self.path.file_name().map(PathBuf::from).unwrap_or_default();
        let directory = match self.options.within {
            Some(_) => beneath::open_directory(self.root.directory.as_fd(), &name),
            None => beneath::open_root(self.path),
        };
        let directory = directory.map_err(SnapshotError::io("open", self.path))?;
        let stat =
            rustix::fs::fstat(&directory).map_err(|errno| SnapshotError::io("look at", self.path)(errno.into()))?;
        let mut found =
            vec![Found { path: name.clone(), kind: FoundKind::Directory { mode: stat.st_mode & MODE_BITS } }];
        for below in walk::walk(&directory, self.path, self.options)? {
            found.push(Found { path: name.join(below.path), kind: below.kind });
        }
        Ok(found)
    }

    /// What stands at the path, which is no directory.
    fn single(&self) -> Result<Found, SnapshotError> {
        let failed = |errno: rustix::io::Errno| SnapshotError::io("look at", self.path)(errno.into());
        let name = self.path.file_name().map(PathBuf::from).unwrap_or_default();
        let root = &self.root.directory;
        let stat = rustix::fs::statat(root, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => FoundKind::File(Stamp::of(&stat)),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(root, &name, Vec::new()).map_err(failed)?;
                FoundKind::Symlink(OsString::from_vec(target.into_bytes()).into())
            }
            _ => return Err(SnapshotError::Special { path: self.path.to_owned() }),
        };
        Ok(Found { path: name, kind })
    }

    /// What the next snapshot may believe, when that is news.
    fn notes(&self, outcome: &hashing::Outcome, found: &[Found], looked: i64) -> Option<Notes> {
        if self.options.stat_cache.is_none() || !outcome.read {
            return None;
        }
        let mut notes = Notes::default();
        for (found, digest) in found.iter().zip(&outcome.digests) {
            if let (FoundKind::File(stamp), Some(digest)) = (&found.kind, digest) {
                notes.file(&found.path, stamp, *digest, looked);
            }
        }
        for (files, digest) in &outcome.packs {
            notes.pack(*files, *digest);
        }
        Some(notes)
    }
}
