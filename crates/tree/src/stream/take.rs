//! Sending a directory as it stands, by whoever keeps no blobs.
//!
//! One walk finds what there is. The manifest that goes first has zeros for digests, and then each file's bytes follow: they are
//! read once, and hashed where they arrive. A file that isn't any more what the walk found ends it.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use executr_spec::Digest;
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;
use thiserror::Error;

use super::{CHUNK, StreamError, send_manifest};
use crate::beneath;
use crate::changes::Baseline;
use crate::manifest::{Entry, FileEntry, Kind, MODE_BITS, Manifest, Place};
use crate::stamp::Stamp;

/// Why a directory or file isn't sent.
#[derive(Debug, Error)]
pub enum TakingError {
    /// The system refused.
    #[error("cannot {action} {}: {source}; check that it may be read", path.display())]
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
    /// It is neither a file, nor a directory, nor a link.
    #[error("{} is no file, directory or link, and nothing else can be saved", path.display())]
    Special {
        /// What it is about.
        path: PathBuf,
    },
    /// Something goes on writing.
    #[error("{} changed while it was read; let what writes it finish first", path.display())]
    Changing {
        /// What changed.
        path: PathBuf,
    },
    /// Nobody wants it any more.
    #[error("it was stopped before all was sent; begin again")]
    Stopped,
}

/// What stands somewhere, found and ready to be sent.
pub struct Taking {
    /// What the entries' paths begin at.
    root: OwnedFd,
    path: PathBuf,
    outline: Manifest,
    /// What each entry looked like.
    stamps: Vec<Stamp>,
    /// Its name below the root, when it is no directory and the tree has no name for it.
    single: Option<OsString>,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TakingError + use<> {
    let path = path.to_owned();
    move |source| match Errno::from_io_error(&source) {
        Some(Errno::LOOP | Errno::XDEV) => TakingError::Link { path },
        _ => TakingError::Io { action, path, source },
    }
}

impl Taking {
    /// Finds what stands at `path` below `base`: no link on the way from there is followed. With `named` it keeps its name, as
    /// `cp -r PATH TREE/` would put it. `None` when nothing is there.
    ///
    /// # Errors
    /// [`StreamError`].
    pub fn find(base: &Path, path: &Path, named: bool) -> Result<Option<Self>, StreamError> {
        let whole = base.join(path);
        let opened = beneath::open_root(base).map_err(failed("open", base))?;
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Self::directory(opened, whole, None).map(Some);
        };
        let parent = match beneath::open_directory(opened.as_fd(), above) {
            Ok(parent) => parent,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open", &base.join(above))(error).into()),
        };
        let stat = match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(failed("look at", &whole)(errno.into()).into()),
        };
        let stamp = Stamp::of(&stat);
        let kept = named.then_some(name);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if named => Self::directory(parent, base.join(above), Some((name, &stamp))).map(Some),
            FileType::Directory => {
                let opened = beneath::open_directory(parent.as_fd(), Path::new(name));
                Self::directory(opened.map_err(failed("open", &whole))?, whole, None).map(Some)
            }
            FileType::RegularFile | FileType::Symlink => {
                let kind = kind(&parent, Path::new(name), &stamp).map_err(failed("read", &whole))?;
                let entry = Entry { path: kept.map(PathBuf::from).unwrap_or_default(), kind };
                let single = (!named).then(|| name.to_owned());
                let outline = Manifest::outline(vec![entry])?;
                Ok(Some(Self { root: parent, path: base.join(above), outline, stamps: vec![stamp], single }))
            }
            _ => Err(TakingError::Special { path: whole }.into()),
        }
    }

    /// A directory, which has `name` in the tree.
    fn directory(root: OwnedFd, path: PathBuf, name: Option<(&OsStr, &Stamp)>) -> Result<Self, StreamError> {
        let (base, prefix) = match name {
            None => (root.try_clone(), PathBuf::new()),
            Some((name, _)) => (beneath::open_directory(root.as_fd(), Path::new(name)), PathBuf::from(name)),
        };
        let base = base.map_err(failed("open", &path.join(&prefix)))?;
        let found = Baseline::record_at(base, &path.join(&prefix))?;
        let (mut entries, mut stamps) = (Vec::with_capacity(found.len() + 1), Vec::with_capacity(found.len() + 1));
        if let Some((_, stamp)) = name {
            entries.push(Entry { path: prefix.clone(), kind: Kind::Directory { mode: stamp.mode & MODE_BITS } });
            stamps.push(*stamp);
        }
        for (below, stamp) in found.stamps() {
            let inside = prefix.join(below);
            match kind(&root, &inside, &stamp) {
                Ok(kind) => entries.push(Entry { path: inside, kind }),
                Err(_) => return Err(TakingError::Changing { path: path.join(&inside) }.into()),
            }
            stamps.push(stamp);
        }
        Ok(Self { root, path, outline: Manifest::outline(entries)?, stamps, single: None })
    }

    /// The bytes of all files together.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.outline.size()
    }

    /// Sends it all.
    ///
    /// # Errors
    /// [`StreamError`].
    pub fn send(&self, stopped: &AtomicBool, to: &mut impl Write) -> Result<(), StreamError> {
        send_manifest(&self.outline, to)?;
        let mut buffer = vec![0; CHUNK];
        for (entry, stamp) in self.outline.entries().iter().zip(&self.stamps) {
            if stopped.load(Ordering::Relaxed) {
                return Err(TakingError::Stopped.into());
            }
            if matches!(&entry.kind, Kind::File(file) if file.size > 0) {
                self.file(entry, stamp, &mut buffer, to)?;
            }
        }
        Ok(())
    }

    fn file(&self, entry: &Entry, stamp: &Stamp, buffer: &mut [u8], to: &mut impl Write) -> Result<(), StreamError> {
        let path = self.single.as_ref().map_or(entry.path.as_path(), Path::new);
        let changing = || StreamError::Take(TakingError::Changing { path: self.path.join(path) });
        let refused = |error| StreamError::Take(failed("read", &self.path.join(path))(error));
        let mut file = match beneath::open_file(self.root.as_fd(), path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(changing()),
            Err(error) => return Err(refused(error)),
        };
        let mut left = stamp.size;
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match file.read(&mut buffer[..most]) {
                Ok(0) => return Err(changing()),
                Ok(read) => {
                    to.write_all(&buffer[..read]).map_err(StreamError::Cut)?;
                    left -= read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(refused(error)),
            }
        }
        // Before and after, for a stamp says it changed at all, whenever.
        let now = rustix::fs::fstat(&file).map_err(|errno| refused(errno.into()))?;
        let now = Stamp::of(&now);
        let same = (now.ctime, now.size, now.inode) == (stamp.ctime, stamp.size, stamp.inode);
        if same { Ok(()) } else { Err(changing()) }
    }
}

/// What something is, but for the digest of its bytes, which is zeros.
fn kind(root: &OwnedFd, path: &Path, stamp: &Stamp) -> io::Result<Kind> {
    Ok(match FileType::from_raw_mode(stamp.mode) {
        FileType::Directory => Kind::Directory { mode: stamp.mode & MODE_BITS },
        FileType::Symlink => {
            let above = path.parent().unwrap_or(Path::new(""));
            let directory = beneath::open_directory(root.as_fd(), above)?;
            let target = rustix::fs::readlinkat(&directory, path.file_name().unwrap_or_default(), Vec::new())?;
            Kind::Symlink { target: OsString::from_vec(target.into_bytes()).into() }
        }
        _ => Kind::File(FileEntry {
            mode: stamp.mode & MODE_BITS,
            size: stamp.size,
            digest: Digest([0; 32]),
            place: Place::Empty,
        }),
    })
}
