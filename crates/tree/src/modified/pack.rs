//! Packing what changed.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use executr_spec::workflow::ArchiveKind;
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::{ATTRIBUTE, DELETED, ModifiedError};
use crate::changes::{Change, News, attributes};
use crate::manifest::MODE_BITS;
use crate::{beneath, parallel};

/// How hard zstd tries; its own default.
const LEVEL: i32 = 3;

/// What an archive holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Files and links.
    pub files: u64,
    /// Paths that were deleted.
    pub deleted: u64,
}

/// Packs what changed in `directory`. What has gone again meanwhile is left out, as are sockets, pipes and devices.
///
/// # Errors
/// [`ModifiedError`].
pub fn pack_modified<'a>(
    directory: &Path,
    changes: impl IntoIterator<Item = &'a Change>,
    kind: ArchiveKind,
    to: impl Write,
) -> Result<Packed, ModifiedError> {
    let root = beneath::open_root(directory).map_err(failed("open", directory))?;
    let compressor = Compressor::new(kind, to).map_err(ModifiedError::Write)?;
    let mut archive = tar::Builder::new(BufWriter::with_capacity(256 << 10, compressor));
    let mut packer = Packer { root, directory, packed: Packed::default() };
    let mut deleted = Vec::new();
    for change in changes {
        if change.path == Path::new(DELETED) {
            continue;
        }
        if change.news == News::Deleted {
            deleted.extend_from_slice(change.path.as_os_str().as_bytes());
            deleted.push(0);
            packer.packed.deleted += 1;
        } else {
            packer.add(&mut archive, &change.path)?;
        }
    }
    if !deleted.is_empty() {
        let mut header = header(tar::EntryType::Regular, 0o644);
        header.set_size(deleted.len() as u64);
        archive.append_data(&mut header, DELETED, &deleted[..]).map_err(ModifiedError::Write)?;
    }
    let buffered = archive.into_inner().map_err(ModifiedError::Write)?;
    let compressor = buffered.into_inner().map_err(|error| ModifiedError::Write(error.into_error()))?;
    compressor.finish().map_err(ModifiedError::Write)?;
    Ok(packer.packed)
}

struct Packer<'a> {
    root: OwnedFd,
    directory: &'a Path,
    packed: Packed,
}

impl Packer<'_> {
    fn add(&mut self, archive: &mut tar::Builder<impl Write>, path: &Path) -> Result<(), ModifiedError> {
        let failed = |action| failed(action, &self.directory.join(path));
        let (above, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
        let parent = match beneath::open_directory(self.root.as_fd(), above) {
            Ok(parent) => parent,
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) => return Err(failed("open")(error)),
        };
        let stat = match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(failed("look at")(errno.into())),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let opened = beneath::open_directory(parent.as_fd(), Path::new(name)).map_err(failed("open"))?;
                write_attributes(archive, &opened).map_err(failed("read"))?;
                let mut header = header(tar::EntryType::Directory, stat.st_mode & MODE_BITS);
                archive.append_data(&mut header, path, io::empty()).map_err(ModifiedError::Write)?;
                return Ok(());
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&parent, name, Vec::new());
                let target = target.map_err(|errno| failed("read")(errno.into()))?;
                let target = Path::new(std::ffi::OsStr::from_bytes(target.as_bytes()));
                let mut header = header(tar::EntryType::Symlink, 0o777);
                archive.append_link(&mut header, path, target).map_err(ModifiedError::Write)?;
            }
            FileType::RegularFile => {
                let mut file = match beneath::open_file(parent.as_fd(), Path::new(name)) {
                    Ok(file) => file,
                    Err(error) if is_gone(&error) => return Ok(()),
                    Err(error) => return Err(failed("read")(error)),
                };
                write_attributes(archive, &file).map_err(failed("read"))?;
                write_file(archive, path, &mut file).map_err(failed("pack"))?;
            }
            _ => return Ok(()),
        }
        self.packed.files += 1;
        Ok(())
    }
}

/// A file with its holes.
fn write_file(archive: &mut tar::Builder<impl Write>, path: &Path, file: &mut File) -> io::Result<()> {
    archive.sparse(true);
    archive.append_file(path, file)
}

fn write_attributes(archive: &mut tar::Builder<impl Write>, of: impl AsFd) -> io::Result<()> {
    let found = attributes::read(of)?;
    let named: Vec<(String, Vec<u8>)> = found
        .into_iter()
        .filter_map(|(name, value)| Some((format!("{ATTRIBUTE}{}", String::from_utf8(name).ok()?), value)))
        .collect();
    if named.is_empty() {
        return Ok(());
    }
    archive.append_pax_extensions(named.iter().map(|(name, value)| (name.as_str(), &value[..])))
}

fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mtime(0);
    header.set_size(0);
    header.set_mode(mode);
    header
}

fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ModifiedError + use<> {
    let path = path.to_owned();
    move |source| ModifiedError::File { action, path, source }
}

/// What makes an archive smaller.
enum Compressor<W: Write> {
    Zstd(zstd::Encoder<'static, W>),
    Snappy(Box<snap::write::FrameEncoder<W>>),
}

impl<W: Write> Compressor<W> {
    fn new(kind: ArchiveKind, to: W) -> io::Result<Self> {
        Ok(match kind {
            ArchiveKind::TarZst => {
                let mut encoder = zstd::Encoder::new(to, LEVEL)?;
                let threads = parallel::threads();
                if threads > 1 {
                    encoder.multithread(u32::try_from(threads).unwrap_or(1))?;
                }
                Self::Zstd(encoder)
            }
            ArchiveKind::TarS2 => Self::Snappy(Box::new(snap::write::FrameEncoder::new(to))),
        })
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Zstd(encoder) => encoder.finish()?.flush(),
            Self::Snappy(encoder) => encoder.into_inner().map_err(|error| io::Error::other(error.to_string()))?.flush(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Zstd(encoder) => encoder.write(bytes),
            Self::Snappy(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Zstd(encoder) => encoder.flush(),
            Self::Snappy(encoder) => encoder.flush(),
        }
    }
}
