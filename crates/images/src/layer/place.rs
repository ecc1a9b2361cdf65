//! Entries put into a directory, relative to directories that are open, and never through a link.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use executr_tree::open_directory;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chownat, fchmod, fchown,
    fsetxattr, futimens, linkat, mkdirat, mknodat, openat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::refusal::Refusal;

/// Whose files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Whose the layer says; takes root. Overlay mounts find their marks in `trusted.overlay.*`.
    Real,
    /// The caller's own, all of them. Overlay mounts find their marks in `user.overlay.*` (`userxattr`).
    Own,
}

impl Ownership {
    /// What this process can do.
    #[must_use]
    pub fn of_this_process() -> Self {
        if rustix::process::geteuid().is_root() { Self::Real } else { Self::Own }
    }

    fn opaque(self) -> &'static str {
        match self {
            Self::Real => "trusted.overlay.opaque",
            Self::Own => "user.overlay.opaque",
        }
    }
}

/// What an entry says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Permissions.
    pub(super) mode: u32,
    pub(super) user: u32,
    pub(super) group: u32,
    /// Seconds and nanoseconds since 1970.
    pub(super) modified: (i64, u32),
    /// Extended attributes.
    pub(super) attributes: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What is neither file, directory nor link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    Fifo,
    Device,
}

/// Bytes written at once; as many zeros in a row become a hole.
const BLOCK: usize = 64 * 1024;

/// The root of a layer that is being unpacked.
pub(super) struct Root<'a> {
    root: BorrowedFd<'a>,
    ownership: Ownership,
    /// The directory of the last entry: the next is likely in it too.
    last: Option<(PathBuf, OwnedFd)>,
    /// What directories are to be like in the end: what is put into them changes them, and may not be allowed later.
    directories: BTreeMap<PathBuf, Facts>,
    buffer: Vec<u8>,
}

impl<'a> Root<'a> {
    pub(super) fn new(root: BorrowedFd<'a>, ownership: Ownership) -> Self {
        let plain = Facts { mode: 0o755, user: 0, group: 0, modified: (0, 0), attributes: BTreeMap::new() };
        let directories = [(PathBuf::new(), plain)].into();
        Self { root, ownership, last: None, directories, buffer: vec![0; BLOCK] }
    }

    /// A directory; one that is there gets these facts.
    pub(super) fn directory(&mut self, path: PathBuf, facts: Facts) -> Result<(), Refusal> {
        if let Some(name) = path.file_name() {
            let parent = self.parent_of(&path)?;
            match make_directory(parent, name) {
                Ok(()) => {}
                Err(Errno::EXIST) => match kind_at(parent, name)? {
                    FileType::Directory => {}
                    kind => {
                        unlinkat(parent, name, AtFlags::empty()).map_err(Refusal::system("replace an entry"))?;
                        make_directory(parent, name).map_err(Refusal::system("make a directory"))?;
                        // What lay below was hidden before.
                        if kind == FileType::CharacterDevice {
                            self.set_opaque(&path)?;
                        }
                    }
                },
                Err(errno) => return Err(Refusal::system("make a directory")(errno)),
            }
        }
        self.directories.insert(path, facts);
        Ok(())
    }

    pub(super) fn file(
        &mut self,
        path: &Path,
        facts: &Facts,
        length: u64,
        content: &mut impl Read,
    ) -> Result<(), Refusal> {
        let name = name_of(path);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let make = |parent: BorrowedFd<'_>| openat(parent, name, flags, Mode::from_raw_mode(0o600));
        let made = self.replacing(path, make).map_err(|why| why.in_action("make a file"))?;
        let mut file = File::from(made);
        self.fill(&mut file, length, content)?;
        let refused = |errno| Refusal::System { action: "give a file its owner and mode", source: Errno::into(errno) };
        if self.ownership == Ownership::Real {
            let (user, group) = (Uid::from_raw(facts.user), Gid::from_raw(facts.group));
            fchown(&file, Some(user), Some(group)).map_err(refused)?;
        }
        // A change of owner takes special bits away, so they come after it.
        fchmod(&file, Mode::from_raw_mode(facts.mode)).map_err(refused)?;
        self.set_attributes(file.as_fd(), facts)?;
        futimens(&file, &times(facts)).map_err(refused)
    }

    /// The content, with holes for long runs of zeros.
    fn fill(&mut self, file: &mut File, length: u64, content: &mut impl Read) -> Result<(), Refusal> {
        let write = |source| Refusal::System { action: "write a file", source };
        let mut left = length;
        let mut ends_in_hole = false;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
            let block = &mut self.buffer[..most];
            content.read_exact(block).map_err(Refusal::Broken)?;
            left -= most as u64;
            ends_in_hole = most == BLOCK && is_zero(block);
            if ends_in_hole {
                file.seek(SeekFrom::Current(BLOCK as i64)).map_err(write)?;
            } else {
                file.write_all(block).map_err(write)?;
            }
        }
        if ends_in_hole {
            file.set_len(length).map_err(write)?;
        }
        Ok(())
    }

    pub(super) fn symlink(&mut self, path: &Path, facts: &Facts, target: &[u8]) -> Result<(), Refusal> {
        if target.is_empty() || target.contains(&0) {
            return Err(Refusal::Name("that of a link to nothing"));
        }
        let (name, target) = (name_of(path), OsStr::from_bytes(target));
        self.replacing(path, |parent| symlinkat(target, parent, name)).map_err(|why| why.in_action("make a link"))?;
        self.finish_at(path, facts)
    }

    /// A second name for what the layer has already.
    pub(super) fn hard_link(&mut self, path: &Path, target: &Path) -> Result<(), Refusal> {
        let missing = || Refusal::Link(target.to_string_lossy().into_owned());
        let target_name = target.file_name().ok_or_else(missing)?;
        let above = target.parent().unwrap_or(Path::new(""));
        let directory = open_directory(self.root, above).map_err(|_| missing())?;
        match kind_at(directory.as_fd(), target_name) {
            Ok(FileType::RegularFile | FileType::Symlink | FileType::Fifo) => {}
            _ => return Err(missing()),
        }
        if path == target {
            return Ok(());
        }
        let name = name_of(path);
        let link = |parent: BorrowedFd<'_>| linkat(&directory, target_name, parent, name, AtFlags::empty());
        self.replacing(path, link).map_err(|why| why.in_action("make a hard link"))
    }

    pub(super) fn special(&mut self, path: &Path, facts: &Facts, special: Special) -> Result<(), Refusal> {
        match special {
            // Whoever runs the image has a /dev of its own over it.
            Special::Device if path.starts_with("dev") => Ok(()),
            Special::Device => Err(Refusal::Device),
            Special::Fifo => {
                let name = name_of(path);
                let make = |parent: BorrowedFd<'_>| {
                    mknodat(parent, name, FileType::Fifo, Mode::from_raw_mode(facts.mode & 0o777), 0)
                };
                self.replacing(path, make).map_err(|why| why.in_action("make a pipe"))?;
                self.finish_at(path, facts)
            }
        }
    }

    /// Hides `name`, beside `path`, of the layers below; what this layer has under it stays.
    pub(super) fn whiteout(&mut self, path: &Path, name: &OsStr) -> Result<(), Refusal> {
        let parent = self.parent_of(path)?;
        match mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) if kind_at(parent, name)? == FileType::Directory => {
                self.set_opaque(&path.with_file_name(name))
            }
            Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(Refusal::system("make a whiteout")(errno)),
        }
    }

    /// Hides all that the layers below have in the directory of `path`.
    pub(super) fn opaque(&mut self, path: &Path) -> Result<(), Refusal> {
        self.parent_of(path)?;
        let parent = path.parent().unwrap_or(Path::new("")).to_owned();
        self.set_opaque(&parent)
    }

    fn set_opaque(&self, directory: &Path) -> Result<(), Refusal> {
        let opened = open_directory(self.root, directory).map_err(|_| Refusal::Behind)?;
        fsetxattr(&opened, self.ownership.opaque(), b"y", XattrFlags::empty())
            .map_err(Refusal::system("mark an opaque directory"))
    }

    /// Gives all directories what they are to be like, the deepest first.
    pub(super) fn finish(mut self) -> Result<(), Refusal> {
        let refused =
            |errno| Refusal::System { action: "give a directory its owner and mode", source: Errno::into(errno) };
        for (path, facts) in std::mem::take(&mut self.directories).into_iter().rev() {
            // It may have been replaced by what came later.
            let Ok(directory) = open_directory(self.root, &path) else { continue };
            if self.ownership == Ownership::Real {
                let (user, group) = (Uid::from_raw(facts.user), Gid::from_raw(facts.group));
                fchown(&directory, Some(user), Some(group)).map_err(refused)?;
            }
            self.set_attributes(directory.as_fd(), &facts)?;
            futimens(&directory, &times(&facts)).map_err(refused)?;
            // Last: one that its owner may not write to takes no attributes from them.
            fchmod(&directory, Mode::from_raw_mode(facts.mode)).map_err(refused)?;
        }
        Ok(())
    }

    /// Does `make` in the directory of `path`, once more after what stands there was removed.
    fn replacing<T>(
        &mut self,
        path: &Path,
        make: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> Result<T, Failed> {
        let parent = self.parent_of(path)?;
        match make(parent) {
            Err(Errno::EXIST) => {}
            made => return made.map_err(Failed::Errno),
        }
        let name = name_of(path);
        if kind_at(parent, name)? == FileType::Directory {
            return Err(Refusal::Replaces.into());
        }
        unlinkat(parent, name, AtFlags::empty()).map_err(Failed::Errno)?;
        make(parent).map_err(Failed::Errno)
    }

    /// The directory an entry is in, made if the layer doesn't have it.
    fn parent_of(&mut self, path: &Path) -> Result<BorrowedFd<'_>, Refusal> {
        let above = path.parent().unwrap_or(Path::new(""));
        if self.last.as_ref().is_none_or(|(last, _)| last != above) {
            let opened = match open_directory(self.root, above) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.make_all(above)?,
                Err(error) => return Err(behind(error)),
                Ok(opened) => opened,
            };
            self.last = Some((above.to_owned(), opened));
        }
        match &self.last {
            Some((_, opened)) => Ok(opened.as_fd()),
            None => Ok(self.root),
        }
    }

    fn make_all(&mut self, path: &Path) -> Result<OwnedFd, Refusal> {
        let mut at = open_directory(self.root, Path::new("")).map_err(behind)?;
        let mut so_far = PathBuf::new();
        for name in path {
            so_far.push(name);
            let next = match open_directory(at.as_fd(), Path::new(name)) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    make_directory(at.as_fd(), name).map_err(Refusal::system("make a directory"))?;
                    let plain = Facts { mode: 0o755, user: 0, group: 0, modified: (0, 0), attributes: BTreeMap::new() };
                    self.directories.insert(so_far.clone(), plain);
                    open_directory(at.as_fd(), Path::new(name)).map_err(behind)?
                }
                opened => opened.map_err(behind)?,
            };
            at = next;
        }
        Ok(at)
    }

    /// Owner and times of what isn't opened.
    fn finish_at(&mut self, path: &Path, facts: &Facts) -> Result<(), Refusal> {
        let ownership = self.ownership;
        let parent = self.parent_of(path)?;
        let name = name_of(path);
        let refused = Refusal::system("give an entry its owner");
        if ownership == Ownership::Real {
            let (user, group) = (Uid::from_raw(facts.user), Gid::from_raw(facts.group));
            chownat(parent, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW).map_err(refused)?;
        }
        utimensat(parent, name, &times(facts), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Refusal::system("give an entry its times"))
    }

    fn set_attributes(&self, file: BorrowedFd<'_>, facts: &Facts) -> Result<(), Refusal> {
        for (name, value) in &facts.attributes {
            match fsetxattr(file, OsStr::from_bytes(name), value, XattrFlags::empty()) {
                Ok(()) => {}
                // What the file system doesn't keep, or this user may not say, no job here could have used either.
                Err(Errno::NOTSUP) => {}
                Err(Errno::PERM | Errno::ACCESS | Errno::INVAL) if self.ownership == Ownership::Own => {}
                Err(errno) => return Err(Refusal::system("give an entry its attributes")(errno)),
            }
        }
        Ok(())
    }
}

/// Why something wasn't made.
enum Failed {
    Refusal(Refusal),
    Errno(Errno),
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self::Refusal(refusal)
    }
}

impl Failed {
    fn in_action(self, action: &'static str) -> Refusal {
        match self {
            Self::Refusal(refusal) => refusal,
            Self::Errno(errno) => Refusal::system(action)(errno),
        }
    }
}

fn behind(error: std::io::Error) -> Refusal {
    match Errno::from_io_error(&error) {
        Some(Errno::LOOP | Errno::NOTDIR | Errno::XDEV) => Refusal::Behind,
        _ => Refusal::System { action: "open a directory", source: error },
    }
}

fn make_directory(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    mkdirat(parent, name, Mode::from_raw_mode(0o700))
}

fn kind_at(parent: BorrowedFd<'_>, name: &OsStr) -> Result<FileType, Refusal> {
    let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(Refusal::system("look at an entry"))?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

/// The last name of a path that isn't the root.
fn name_of(path: &Path) -> &OsStr {
    path.file_name().unwrap_or(OsStr::new("."))
}

fn times(facts: &Facts) -> Timestamps {
    let (seconds, nanoseconds) = facts.modified;
    let unsaid = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    Timestamps { last_access: unsaid, last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() } }
}

fn is_zero(block: &[u8]) -> bool {
    block.iter().all(|byte| *byte == 0)
}
