//! Unpacking what changed, over what is there. An archive may come from anybody: nothing is written outside of the
//! directory, nor through a link in it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use executr_spec::workflow::ArchiveKind;
use rustix::fs::{AtFlags, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::{ATTRIBUTE, DELETED, ModifiedError};
use crate::beneath;
use crate::changes::attributes;
use crate::manifest::MODE_BITS;

/// The most bytes of the list of what was deleted.
const MOST_DELETED: u64 = 256 << 20;
/// Zeros of such a length become a hole.
const BLOCK: usize = 64 << 10;

/// What was unpacked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Files and links.
    pub files: u64,
    /// What was deleted where the archive comes from. Nothing of it is deleted here.
    pub deleted: Vec<PathBuf>,
}

/// Unpacks an archive into `target`, which is made when it isn't there. Files and links are replaced; directories that are
/// there are used.
///
/// # Errors
/// [`ModifiedError`]; a part may be there then.
pub fn unpack_modified(from: impl Read, kind: ArchiveKind, target: &Path) -> Result<Unpacked, ModifiedError> {
    match std::fs::create_dir_all(target) {
        Err(source) => Err(ModifiedError::File { action: "make", path: target.to_owned(), source })?,
        Ok(()) => match kind {
            ArchiveKind::TarZst => {
                let decoder = zstd::Decoder::new(from).map_err(ModifiedError::Read)?;
                unpack(BufReader::with_capacity(256 << 10, decoder), target)
            }
            ArchiveKind::TarS2 => unpack(snap::read::FrameDecoder::new(from), target),
        },
    }
}

fn unpack(from: impl Read, target: &Path) -> Result<Unpacked, ModifiedError> {
    let root = beneath::open_root(target).map_err(failed("open", target))?;
    let mut unpacker = Unpacker { root, target, unpacked: Unpacked::default(), modes: Vec::new() };
    let mut archive = tar::Archive::new(from);
    for entry in archive.entries().map_err(ModifiedError::Read)? {
        unpacker.entry(entry.map_err(ModifiedError::Read)?)?;
    }
    unpacker.finish()
}

struct Unpacker<'a> {
    root: OwnedFd,
    target: &'a Path,
    unpacked: Unpacked,
    /// Of directories, which have to be writable until all is there.
    modes: Vec<(PathBuf, u32)>,
}

impl Unpacker<'_> {
    fn entry(&mut self, mut entry: tar::Entry<'_, impl Read>) -> Result<(), ModifiedError> {
        let path = inside(&entry.path_bytes())?;
        let kind = entry.header().entry_type();
        if path == Path::new(DELETED) && kind.is_file() {
            return self.deleted(&mut entry);
        }
        let attributes = attributes_of(&mut entry)?;
        let mode = entry.header().mode().map_err(ModifiedError::Read)? & MODE_BITS;
        let (above, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
        let parent = self.directory(above)?;
        let failed = |action| failed(action, &self.target.join(&path));
        match kind {
            tar::EntryType::Directory => {
                let made = self.directory(&path)?;
                set_attributes(&made, &attributes).map_err(failed("set attributes of"))?;
                self.modes.push((path, mode));
            }
            tar::EntryType::Symlink => {
                let link = entry.link_name_bytes().unwrap_or_default().into_owned();
                clear(&parent, name).map_err(failed("replace"))?;
                let made = rustix::fs::symlinkat(Path::new(OsStr::from_bytes(&link)), &parent, name);
                made.map_err(|errno| failed("make")(errno.into()))?;
                self.unpacked.files += 1;
            }
            tar::EntryType::Regular | tar::EntryType::GNUSparse | tar::EntryType::Continuous => {
                clear(&parent, name).map_err(failed("replace"))?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o600));
                let mut file = File::from(made.map_err(|errno| failed("make")(errno.into()))?);
                copy(&mut entry, &mut file, &self.target.join(&path))?;
                set_attributes(&file, &attributes).map_err(failed("set attributes of"))?;
                let set = rustix::fs::fchmod(&file, Mode::from_raw_mode(mode));
                set.map_err(|errno| failed("set the mode of")(errno.into()))?;
                self.unpacked.files += 1;
            }
            _ => return Err(odd(path.as_os_str().as_bytes(), "is no file, directory or link")),
        }
        Ok(())
    }

    /// Opens a directory, made where it isn't there; what stands in its place is removed, but for a link to a directory, which
    /// could lead anywhere.
    fn directory(&self, path: &Path) -> Result<OwnedFd, ModifiedError> {
        let root = || self.root.try_clone().map_err(failed("open", self.target));
        match beneath::open_directory(self.root.as_fd(), path) {
            Ok(opened) => return Ok(opened),
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => {}
            Err(error) => return Err(failed("open", &self.target.join(path))(error)),
        }
        let mut at = root()?;
        let mut walked = PathBuf::new();
        for name in path.components().map(Component::as_os_str) {
            walked.push(name);
            let failed = |action| failed(action, &self.target.join(&walked));
            at = match beneath::open_directory(at.as_fd(), Path::new(name)) {
                Ok(opened) => opened,
                Err(error) => {
                    if !matches!(Errno::from_io_error(&error), Some(Errno::NOENT)) {
                        clear(&at, name).map_err(failed("replace"))?;
                    }
                    let made = rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o755));
                    made.map_err(|errno| failed("make")(errno.into()))?;
                    beneath::open_directory(at.as_fd(), Path::new(name)).map_err(failed("open"))?
                }
            };
        }
        Ok(at)
    }

    fn deleted(&mut self, list: &mut impl Read) -> Result<(), ModifiedError> {
        let mut bytes = Vec::new();
        list.take(MOST_DELETED).read_to_end(&mut bytes).map_err(ModifiedError::Read)?;
        for path in bytes.split(|byte| *byte == 0).filter(|path| !path.is_empty()) {
            self.unpacked.deleted.push(inside(path)?);
        }
        Ok(())
    }

    fn finish(self) -> Result<Unpacked, ModifiedError> {
        // Those within others first: one may be closed then.
        for (path, mode) in self.modes.iter().rev() {
            let failed = |error| failed("set the mode of", &self.target.join(path))(error);
            let opened = beneath::open_directory(self.root.as_fd(), path).map_err(failed)?;
            rustix::fs::fchmod(&opened, Mode::from_raw_mode(*mode)).map_err(|errno| failed(errno.into()))?;
        }
        Ok(self.unpacked)
    }
}

/// Removes a file or link that is in the way; a directory stays, and is told by whoever wants its place.
fn clear(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Copies a file's bytes; long runs of zeros become holes.
fn copy(from: &mut impl Read, to: &mut File, path: &Path) -> Result<(), ModifiedError> {
    let failed = || failed("write", path);
    let mut buffer = vec![0; BLOCK];
    let mut length = 0_u64;
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match from.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ModifiedError::Read(error)),
            }
        }
        if filled == 0 {
            break;
        }
        length += filled as u64;
        if filled == BLOCK && buffer.iter().all(|byte| *byte == 0) {
            to.seek(SeekFrom::Current(BLOCK as i64)).map_err(failed())?;
        } else {
            to.write_all(&buffer[..filled]).map_err(failed())?;
        }
    }
    to.set_len(length).map_err(failed())
}

fn attributes_of(entry: &mut tar::Entry<'_, impl Read>) -> Result<Vec<(String, Vec<u8>)>, ModifiedError> {
    let mut found = Vec::new();
    let Some(extensions) = entry.pax_extensions().map_err(ModifiedError::Read)? else { return Ok(found) };
    for extension in extensions {
        let extension = extension.map_err(ModifiedError::Read)?;
        let name = extension.key().ok().and_then(|key| key.strip_prefix(ATTRIBUTE));
        if let Some(name) = name.filter(|name| attributes::is_kept(name.as_bytes())) {
            found.push((name.to_owned(), extension.value_bytes().to_vec()));
        }
    }
    Ok(found)
}

/// Sets attributes, as far as this file system and user may have them.
fn set_attributes(file: impl AsFd, attributes: &[(String, Vec<u8>)]) -> io::Result<()> {
    for (name, value) in attributes {
        match rustix::fs::fsetxattr(&file, name.as_str(), value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP | Errno::PERM) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// A path that stays below where it begins.
fn inside(bytes: &[u8]) -> Result<PathBuf, ModifiedError> {
    let path = PathBuf::from(std::ffi::OsString::from_vec(bytes.to_vec()));
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            _ => return Err(odd(bytes, "leads out of the directory")),
        }
    }
    if clean.as_os_str().is_empty() {
        return Err(odd(bytes, "has no name"));
    }
    Ok(clean)
}

fn odd(name: &[u8], problem: &'static str) -> ModifiedError {
    ModifiedError::Odd { name: String::from_utf8_lossy(name).escape_debug().to_string(), problem }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ModifiedError + use<> {
    let path = path.to_owned();
    move |source| ModifiedError::File { action, path, source }
}
