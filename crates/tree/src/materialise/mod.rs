//! Putting a tree into a directory.
//!
//! Nothing is written outside the target, nor through a link: [`target`] sees to that. Bytes of large files are shared with the blob where the filesystem can, else
//! copied by the kernel; small ones come out of packs, each read once by each thread.

mod copying;
mod target;

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use executr_spec::Digest;
use thiserror::Error;

use crate::blob_dir::{BlobDir, BlobDirError};
use crate::manifest::{FileEntry, Kind, Manifest, Place};
use crate::parallel;
use crate::stamp::{self, Stamp};

pub(crate) use copying::copy_file;
pub(crate) use target::{Group, Target};

/// What to do where something stands already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// End with an error. Directories that are there are used, and keep their modes.
    #[default]
    Refuse,
    /// Replace files and links; directories that are there are used.
    Replace,
}

/// Whose everything is to be that is put somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

impl Owner {
    fn user(self) -> rustix::fs::Uid {
        rustix::fs::Uid::from_raw(self.uid)
    }

    fn group(self) -> rustix::fs::Gid {
        rustix::fs::Gid::from_raw(self.gid)
    }
}

/// Where a tree goes, and how.
#[derive(Clone, Copy, Debug)]
pub struct PlaceAt<'a> {
    /// As the target of [`materialise`].
    pub target: &'a Path,
    /// A directory below the target that the tree goes into, and that is made: no link on the way is followed. Mostly empty.
    pub below: &'a Path,
    /// What to do where something stands already.
    pub existing: Existing,
    /// Whose everything is to be that is made; whose this program is when `None`.
    pub owner: Option<Owner>,
}

/// What a tree looked like when it had just been put somewhere, for a [`Baseline`](crate::Baseline) to compare with.
#[derive(Clone, Debug, Default)]
pub struct Placed {
    /// Of each entry of the manifest, in order; directories have none.
    pub(crate) stamps: Vec<Option<Stamp>>,
    /// What the clock said then, in nanoseconds since 1970.
    pub(crate) at: i64,
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

pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MaterialiseError {
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
    let to = PlaceAt { target, below: Path::new(""), existing, owner: None };
    let target = Target::open(stopped, manifest, to)?;
    let placing = Placing { manifest, blobs, target: &target };
    let groups = target.groups(|_| true);
    let stamps = parallel::for_each(&groups, Pack::default, |pack, group| placing.group(group, pack))?;
    target.modes()?;
    let mut placed = Placed { stamps: vec![None; manifest.entries().len()], at: stamp::now() };
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
    manifest: &'a Manifest,
    blobs: &'a BlobDir,
    target: &'a Target<'a>,
}

impl Placing<'_> {
    fn group(&self, group: &Group<'_>, pack: &mut Pack) -> Result<Vec<(usize, Option<Stamp>)>, MaterialiseError> {
        let directory = self.target.directory(group.directory)?;
        let put = |index: &usize| {
            let entry = &self.manifest.entries()[*index];
            let fill = |made: &mut File| match &entry.kind {
                Kind::File(file) => self.fill(made, file, pack, &|| self.target.path(entry)),
                Kind::Directory { .. } | Kind::Symlink { .. } => Ok(()),
            };
            Ok((*index, self.target.put(&directory, entry, fill)?))
        };
        group.entries.iter().map(put).collect()
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
        copy_file(blob, made, file.size)
            .map_err(|error| (error.kind() != io::ErrorKind::UnexpectedEof).then_some(error))
    }
}
