//! Putting a tree into a directory.
//!
//! Nothing is written outside the target, nor through a link: every directory is opened by its own descriptor without
//! following any, every file is made anew. Bytes of large files are shared with the blob where the filesystem can, else
//! copied by the kernel; small ones come out of packs, each read once by each thread.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use executr_spec::Digest;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use thiserror::Error;

use crate::blob_dir::{BlobDir, BlobDirError};
use crate::manifest::{Entry, FileEntry, Kind, MODE_BITS, Manifest, Place};
use crate::stamp::Stamp;
use crate::{beneath, parallel};

/// So many entries of one directory are put there by one thread at a time.
const TOGETHER: usize = 256;

/// What to do where something stands already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// End with an error. Directories that are there are used, and keep their modes.
    #[default]
    Refuse,
    /// Replace files and links; directories that are there are used.
    Replace,
}

/// What a tree looked like when it had just been put somewhere, for [`changes`](crate::changes) to compare with.
#[derive(Clone, Debug, Default)]
pub struct Placed {
    /// Of each entry of the manifest, in order; directories have none.
    pub(crate) stamps: Vec<Option<Stamp>>,
}

/// Why a tree isn't there.
#[derive(Debug, Error)]
pub enum MaterialiseError {
    /// The system refused.
    #[error("cannot {action} {}: {source}; check that the directory is writable and has space left", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something is in the way.
    #[error("{} stands there already; remove it or restore to another place", path.display())]
    Exists {
        /// What.
        path: PathBuf,
    },
    /// Not all blobs are there.
    #[error("blob {0} is not there; fetch it first")]
    Missing(Digest),
    /// A blob is shorter than the tree says.
    #[error("blob {0} is damaged; remove it and fetch it again")]
    Damaged(Digest),
    /// It was told to stop.
    #[error("it was stopped before all was there; begin again")]
    Stopped,
    /// The directory of blobs doesn't do its part.
    #[error(transparent)]
    Blobs(#[from] BlobDirError),
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MaterialiseError {
    let path = path.to_owned();
    move |source| MaterialiseError::Io { action, path, source }
}

/// Puts the tree at `target`: a directory, which is made when it isn't there, or the file or link that the tree is. The
/// directory that `target` is in must be there; links on the way to it are followed, for they are the caller's.
///
/// What was written is not synced. After an error a part of the tree may be there.
///
/// # Errors
/// [`MaterialiseError`]; that of the first of many.
pub fn materialise(
    manifest: &Manifest,
    blobs: &BlobDir,
    target: &Path,
    existing: Existing,
) -> Result<Placed, MaterialiseError> {
    materialise_unless(&AtomicBool::new(false), manifest, blobs, target, existing)
}

/// As [`materialise`], ending with an error soon after `stopped` is set: at the latest with the file that is being written.
///
/// # Errors
/// [`MaterialiseError`].
pub fn materialise_unless(
    stopped: &AtomicBool,
    manifest: &Manifest,
    blobs: &BlobDir,
    target: &Path,
    existing: Existing,
) -> Result<Placed, MaterialiseError> {
    let placing = Placing { stopped, manifest, blobs, target, existing, no_reflink: AtomicBool::new(false) };
    if manifest.is_single() {
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let directory = beneath::open_root(parent).map_err(failed("open", parent))?;
        let name = target.file_name().unwrap_or_default();
        let mut pack = Pack::default();
        let stamps = manifest.entries().iter().map(|entry| placing.put(&directory, name, entry, &mut pack));
        return Ok(Placed { stamps: stamps.collect::<Result<_, _>>()? });
    }
    match rustix::fs::mkdir(target, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(failed("make", target)(errno.into())),
    }
    let root = beneath::open_root(target).map_err(failed("open", target))?;
    let found = placing.directories(&root)?;
    let groups = placing.groups();
    let stamps = parallel::for_each(&groups, Pack::default, |pack, group| placing.group(&root, group, pack))?;
    placing.modes(&root, &found)?;
    let mut placed = Placed { stamps: vec![None; manifest.entries().len()] };
    for (index, stamp) in stamps.into_iter().flatten() {
        placed.stamps[index] = stamp;
    }
    Ok(placed)
}

/// The pack that a thread has in memory.
#[derive(Default)]
struct Pack {
    number: Option<u32>,
    bytes: Vec<u8>,
}

struct Placing<'a> {
    stopped: &'a AtomicBool,
    manifest: &'a Manifest,
    blobs: &'a BlobDir,
    target: &'a Path,
    existing: Existing,
    /// Tried once, and the filesystem can't.
    no_reflink: AtomicBool,
}

/// Files and links of one directory, by their indices.
struct Group<'a> {
    directory: &'a Path,
    entries: Vec<usize>,
}

impl Placing<'_> {
    fn go_on(&self) -> Result<(), MaterialiseError> {
        if self.stopped.load(Ordering::Relaxed) { Err(MaterialiseError::Stopped) } else { Ok(()) }
    }

    /// Makes all directories, writable for now; those that were there, in the manifest's order.
    fn directories(&self, root: &OwnedFd) -> Result<Vec<&Path>, MaterialiseError> {
        let mut found = Vec::new();
        // The one that the last directory was made in, mostly the next one's too.
        let mut last: Option<(&Path, OwnedFd)> = None;
        for entry in self.manifest.entries() {
            let Kind::Directory { mode } = entry.kind else { continue };
            self.go_on()?;
            let (above, name) = split(&entry.path);
            if last.as_ref().is_none_or(|(path, _)| *path != above) {
                let opened = beneath::open_directory(root.as_fd(), above);
                last = Some((above, opened.map_err(failed("open", &self.target.join(above)))?));
            }
            let Some((_, directory)) = &last else { continue };
            match rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(mode | 0o700)) {
                Ok(()) => {}
                // What isn't a directory is found out when it is opened.
                Err(Errno::EXIST) => found.push(entry.path.as_path()),
                Err(errno) => return Err(failed("make", &self.target.join(&entry.path))(errno.into())),
            }
        }
        Ok(found)
    }

    fn groups(&self) -> Vec<Group<'_>> {
        let mut groups: Vec<Group<'_>> = Vec::new();
        // The groups that are being filled: those of the directories above the entry, and its own.
        let mut open: Vec<usize> = Vec::new();
        for (index, entry) in self.manifest.entries().iter().enumerate() {
            if matches!(entry.kind, Kind::Directory { .. }) {
                continue;
            }
            let (above, _) = split(&entry.path);
            while open.last().is_some_and(|last| !above.starts_with(groups[*last].directory)) {
                open.pop();
            }
            let fits = open.last().is_some_and(|last| groups[*last].directory == above);
            if fits && open.last().is_some_and(|last| groups[*last].entries.len() < TOGETHER) {
                let last = open[open.len() - 1];
                groups[last].entries.push(index);
                continue;
            }
            if fits {
                open.pop();
            }
            open.push(groups.len());
            groups.push(Group { directory: above, entries: vec![index] });
        }
        groups
    }

    fn group(
        &self,
        root: &OwnedFd,
        group: &Group<'_>,
        pack: &mut Pack,
    ) -> Result<Vec<(usize, Option<Stamp>)>, MaterialiseError> {
        let directory = beneath::open_directory(root.as_fd(), group.directory)
            .map_err(failed("open", &self.target.join(group.directory)))?;
        let put = |index: &usize| {
            let entry = &self.manifest.entries()[*index];
            Ok((*index, self.put(&directory, split(&entry.path).1, entry, pack)?))
        };
        group.entries.iter().map(put).collect()
    }

    /// Puts a file or a link into a directory; what it looks like then.
    fn put(
        &self,
        directory: &OwnedFd,
        name: &OsStr,
        entry: &Entry,
        pack: &mut Pack,
    ) -> Result<Option<Stamp>, MaterialiseError> {
        self.go_on()?;
        let path = || self.target.join(&entry.path);
        match &entry.kind {
            Kind::Directory { .. } => Ok(None),
            Kind::Symlink { target } => {
                let link = || rustix::fs::symlinkat(target.as_path(), directory, name);
                self.anew(directory, name, link).map_err(|errno| self.refused("make", path(), errno))?;
                let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|errno| self.refused("look at", path(), errno))?;
                Ok(Some(Stamp::of(&stat)))
            }
            Kind::File(file) => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mode = Mode::from_raw_mode(file.mode);
                let made = self
                    .anew(directory, name, || rustix::fs::openat(directory, name, flags, mode))
                    .map_err(|errno| self.refused("make", path(), errno))?;
                let mut made = File::from(made);
                self.fill(&mut made, file, pack, &path)?;
                let stat =
                    |made: &File| rustix::fs::fstat(made).map_err(|errno| self.refused("look at", path(), errno));
                let mut stamp = Stamp::of(&stat(&made)?);
                // The process's own mask may have taken bits away.
                if stamp.mode & MODE_BITS != file.mode {
                    rustix::fs::fchmod(&made, mode).map_err(|errno| self.refused("set the mode of", path(), errno))?;
                    stamp = Stamp::of(&stat(&made)?);
                }
                Ok(Some(stamp))
            }
        }
    }

    /// Makes something where nothing may be; once more after removing what is there, if that is allowed.
    fn anew<T>(
        &self,
        directory: &OwnedFd,
        name: &OsStr,
        make: impl Fn() -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        match make() {
            Err(Errno::EXIST) if self.existing == Existing::Replace => {
                rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
                make()
            }
            made => made,
        }
    }

    fn refused(&self, action: &'static str, path: PathBuf, errno: Errno) -> MaterialiseError {
        match errno {
            Errno::EXIST | Errno::ISDIR => MaterialiseError::Exists { path },
            errno => MaterialiseError::Io { action, path, source: errno.into() },
        }
    }

    fn fill(
        &self,
        made: &mut File,
        file: &FileEntry,
        pack: &mut Pack,
        path: &impl Fn() -> PathBuf,
    ) -> Result<(), MaterialiseError> {
        match file.place {
            Place::Empty => Ok(()),
            Place::Own => {
                let blob = self.blobs.hold(file.digest)?.ok_or(MaterialiseError::Missing(file.digest))?;
                self.copy(&blob, made, file).map_err(|error| match error {
                    Some(error) => failed("write", &path())(error),
                    None => MaterialiseError::Damaged(file.digest),
                })
            }
            Place::Packed { pack: number, offset } => {
                let digest = self.manifest.packs()[number as usize];
                if pack.number != Some(number) {
                    pack.number = None;
                    self.read_pack(digest, &mut pack.bytes)?;
                    pack.number = Some(number);
                }
                // A small file's size fits.
                let bytes = pack.bytes.get(offset as usize..).and_then(|rest| rest.get(..file.size as usize));
                let bytes = bytes.ok_or(MaterialiseError::Damaged(digest))?;
                made.write_all(bytes).map_err(failed("write", &path()))
            }
        }
    }

    fn read_pack(&self, digest: Digest, bytes: &mut Vec<u8>) -> Result<(), MaterialiseError> {
        let blob = self.blobs.hold(digest)?.ok_or(MaterialiseError::Missing(digest))?;
        let path = || self.blobs.path(digest);
        let size = blob.metadata().map_err(failed("read", &path()))?.len();
        let size = usize::try_from(size).ok().filter(|size| *size <= crate::manifest::packing::MOST as usize);
        bytes.clear();
        bytes.resize(size.ok_or(MaterialiseError::Damaged(digest))?, 0);
        blob.read_exact_at(bytes, 0).map_err(failed("read", &path()))
    }

    /// Gives a file a blob's bytes. The error is `None` when the blob ends too early.
    fn copy(&self, blob: &File, made: &mut File, file: &FileEntry) -> Result<(), Option<io::Error>> {
        let length = blob.metadata().map_err(Some)?.len();
        if length != file.size {
            return Err(None);
        }
        if !self.no_reflink.load(Ordering::Relaxed) {
            if rustix::fs::ioctl_ficlone(&*made, blob).is_ok() {
                return Ok(());
            }
            self.no_reflink.store(true, Ordering::Relaxed);
        }
        // The kernel copies, where it can, and falls back to what always works by itself.
        let mut from = blob;
        let copied = io::copy(&mut from, made).map_err(Some)?;
        if copied == file.size { Ok(()) } else { Err(None) }
    }

    /// Gives directories their modes, once they are filled. Those that were there are their owner's unless files may be
    /// replaced.
    fn modes(&self, root: &OwnedFd, found: &[&Path]) -> Result<(), MaterialiseError> {
        let mut kept = found.iter().rev().peekable();
        for Entry { path, kind } in self.manifest.entries().iter().rev() {
            let Kind::Directory { mode } = kind else { continue };
            if kept.next_if(|kept| **kept == path).is_some() && self.existing == Existing::Refuse {
                continue;
            }
            // Mostly right already: looking is cheaper than opening.
            let is_right = rustix::fs::statat(root, path, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| Stamp::of(&stat).mode & MODE_BITS == *mode);
            if is_right {
                continue;
            }
            let change = || {
                let directory = beneath::open_directory(root.as_fd(), path)?;
                Ok(rustix::fs::fchmod(&directory, Mode::from_raw_mode(*mode))?)
            };
            change().map_err(failed("set the mode of", &self.target.join(path)))?;
        }
        Ok(())
    }
}

/// A path's directory and name.
fn split(path: &Path) -> (&Path, &OsStr) {
    let bytes = path.as_os_str().as_bytes();
    match bytes.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (Path::new(OsStr::from_bytes(&bytes[..slash])), OsStr::from_bytes(&bytes[slash + 1..])),
        None => (Path::new(""), path.as_os_str()),
    }
}
