//! Where a tree is put: directories, files and links made below one root and nowhere else.
//!
//! Where the bytes come from is the caller's business; here is what makes it safe: every directory is opened by its own
//! descriptor without following any link, every file is made anew.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::{Existing, MaterialiseError, Owner, PlaceAt, failed};
use crate::beneath;
use crate::manifest::{Entry, Kind, MODE_BITS, Manifest};
use crate::stamp::Stamp;

/// So many entries of one directory are put there by one thread at a time.
const TOGETHER: usize = 256;

/// The place of a tree.
pub(crate) struct Target<'a> {
    stopped: &'a AtomicBool,
    manifest: &'a Manifest,
    path: &'a Path,
    below: &'a Path,
    existing: Existing,
    owner: Option<Owner>,
    root: OwnedFd,
    /// Directories that were there, in the manifest's order.
    found: Vec<&'a Path>,
}

/// Files and links of one directory, by their indices.
pub(crate) struct Group<'a> {
    pub(crate) directory: &'a Path,
    pub(crate) entries: Vec<usize>,
}

impl<'a> Target<'a> {
    /// Opens the place, and makes all directories of the tree, writable for now. Of a tree that is one file or link the root
    /// is the directory it comes to stand in.
    pub(crate) fn open(
        stopped: &'a AtomicBool,
        manifest: &'a Manifest,
        to: PlaceAt<'a>,
    ) -> Result<Self, MaterialiseError> {
        let PlaceAt { target: path, below, existing, owner } = to;
        let is_single = manifest.is_single();
        let above = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let root = if is_single { above } else { path };
        if !is_single {
            match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
                Ok(()) => give(rustix::fs::CWD, path.as_os_str(), owner)
                    .map_err(|errno| failed("give away", path)(errno.into()))?,
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed("make", path)(errno.into())),
            }
        }
        let mut root = beneath::open_root(root).map_err(failed("open", root))?;
        for name in below.components() {
            let name = name.as_os_str();
            // A way out is found out when it is opened.
            match rustix::fs::mkdirat(&root, name, Mode::from_raw_mode(0o755)) {
                Ok(()) => give(&root, name, owner).map_err(|errno| failed("give away", below)(errno.into()))?,
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed("make", &path.join(below))(errno.into())),
            }
            root = beneath::open_directory(root.as_fd(), Path::new(name)).map_err(failed("open", &path.join(below)))?;
        }
        let mut target = Self { stopped, manifest, path, below, existing, owner, root, found: Vec::new() };
        target.found = target.directories()?;
        Ok(target)
    }

    /// Where something of the tree stands, for people.
    pub(crate) fn path(&self, entry: &Entry) -> PathBuf {
        if entry.path.as_os_str().is_empty() { self.path.to_owned() } else { self.whole(&entry.path) }
    }

    fn whole(&self, path: &Path) -> PathBuf {
        self.path.join(self.below).join(path)
    }

    /// Opens a directory of the tree.
    pub(crate) fn directory(&self, path: &Path) -> Result<OwnedFd, MaterialiseError> {
        beneath::open_directory(self.root.as_fd(), path).map_err(|error| failed("open", &self.whole(path))(error))
    }

    /// Opens a file of the tree that was put there.
    pub(crate) fn open_file(&self, entry: &Entry) -> Result<File, MaterialiseError> {
        beneath::open_file(self.root.as_fd(), &entry.path).map_err(|error| failed("read", &self.path(entry))(error))
    }

    /// An error once it shall stop.
    pub(crate) fn go_on(&self) -> Result<(), MaterialiseError> {
        if self.stopped.load(Ordering::Relaxed) { Err(MaterialiseError::Stopped) } else { Ok(()) }
    }

    /// Makes all directories, writable for now; those that were there, in the manifest's order.
    fn directories(&self) -> Result<Vec<&'a Path>, MaterialiseError> {
        let mut found = Vec::new();
        // The one that the last directory was made in, mostly the next one's too.
        let mut last: Option<(&Path, OwnedFd)> = None;
        let manifest: &'a Manifest = self.manifest;
        for entry in manifest.entries() {
            let Kind::Directory { mode } = entry.kind else { continue };
            self.go_on()?;
            let (above, name) = split(&entry.path);
            if last.as_ref().is_none_or(|(path, _)| *path != above) {
                let opened = beneath::open_directory(self.root.as_fd(), above);
                last = Some((above, opened.map_err(failed("open", &self.whole(above)))?));
            }
            let Some((_, directory)) = &last else { continue };
            match rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(mode | 0o700)) {
                Ok(()) => give(directory, name, self.owner)
                    .map_err(|errno| failed("give away", &self.whole(&entry.path))(errno.into()))?,
                // What isn't a directory is found out when it is opened.
                Err(Errno::EXIST) => found.push(entry.path.as_path()),
                Err(errno) => return Err(failed("make", &self.whole(&entry.path))(errno.into())),
            }
        }
        Ok(found)
    }

    /// All files and links of which `wanted` is true, those of a directory together.
    pub(crate) fn groups(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<Group<'a>> {
        let mut groups: Vec<Group<'a>> = Vec::new();
        // The groups that are being filled: those of the directories above the entry, and its own.
        let mut open: Vec<usize> = Vec::new();
        let manifest: &'a Manifest = self.manifest;
        for (index, entry) in manifest.entries().iter().enumerate() {
            if matches!(entry.kind, Kind::Directory { .. }) || !wanted(entry) {
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

    /// Puts a file, which `fill` gives its bytes, or a link into its directory; what it looks like then.
    pub(crate) fn put(
        &self,
        directory: &OwnedFd,
        entry: &Entry,
        fill: impl FnOnce(&mut File) -> Result<(), MaterialiseError>,
    ) -> Result<Option<Stamp>, MaterialiseError> {
        self.go_on()?;
        let path = || self.path(entry);
        let single = self.path.file_name().unwrap_or_default();
        let name = if entry.path.as_os_str().is_empty() { single } else { split(&entry.path).1 };
        match &entry.kind {
            Kind::Directory { .. } => Ok(None),
            Kind::Symlink { target } => {
                let link = || rustix::fs::symlinkat(target.as_path(), directory, name);
                self.anew(directory, name, link).map_err(|errno| self.refused("make", path(), errno))?;
                give(directory, name, self.owner).map_err(|errno| self.refused("give away", path(), errno))?;
                let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|errno| self.refused("look at", path(), errno))?;
                Ok(Some(Stamp::of(&stat)))
            }
            Kind::File(file) => {
                let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mode = Mode::from_raw_mode(file.mode);
                let made = self
                    .anew(directory, name, || rustix::fs::openat(directory, name, flags, mode))
                    .map_err(|errno| self.refused("make", path(), errno))?;
                let mut made = File::from(made);
                if let Some(owner) = self.owner {
                    rustix::fs::fchown(&made, Some(owner.user()), Some(owner.group()))
                        .map_err(|errno| self.refused("give away", path(), errno))?;
                }
                if let Err(error) = fill(&mut made) {
                    // Nothing half shall be taken for it.
                    let _ = rustix::fs::unlinkat(directory, name, AtFlags::empty());
                    return Err(error);
                }
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

    /// Gives directories their modes, once they are filled. Those that were there are their owner's unless files may be
    /// replaced.
    pub(crate) fn modes(&self) -> Result<(), MaterialiseError> {
        let mut kept = self.found.iter().rev().peekable();
        for Entry { path, kind } in self.manifest.entries().iter().rev() {
            let Kind::Directory { mode } = kind else { continue };
            if kept.next_if(|kept| **kept == path).is_some() && self.existing == Existing::Refuse {
                continue;
            }
            // Mostly right already: looking is cheaper than opening.
            let is_right = rustix::fs::statat(&self.root, path, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| Stamp::of(&stat).mode & MODE_BITS == *mode);
            if is_right {
                continue;
            }
            let change = || {
                let directory = beneath::open_directory(self.root.as_fd(), path)?;
                Ok(rustix::fs::fchmod(&directory, Mode::from_raw_mode(*mode))?)
            };
            change().map_err(failed("set the mode of", &self.whole(path)))?;
        }
        Ok(())
    }
}

/// Gives something that was just made to its owner.
fn give(directory: impl AsFd, name: &OsStr, owner: Option<Owner>) -> rustix::io::Result<()> {
    let Some(owner) = owner else { return Ok(()) };
    rustix::fs::chownat(directory, name, Some(owner.user()), Some(owner.group()), AtFlags::SYMLINK_NOFOLLOW)
}

/// A path's directory and name.
fn split(path: &Path) -> (&Path, &OsStr) {
    let bytes = path.as_os_str().as_bytes();
    match bytes.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (Path::new(OsStr::from_bytes(&bytes[..slash])), OsStr::from_bytes(&bytes[slash + 1..])),
        None => (Path::new(""), path.as_os_str()),
    }
}
