//! A task's directory and files: made before the start, removed after the end.
//!
//! Removal runs when no process of the task is left, goes from descriptor to descriptor, and never follows a
//! symbolic link.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use executr_agent_protocol::v1;
use rustix::fs::{self, AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Directories deeper than this are moved up before they are emptied, so that a tree of any depth takes this
/// many descriptors.
const DEPTH: usize = 32;

/// Why a file or directory isn't as asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DirectoryError {
    #[error(
        "the directory {path} can't be made: {source}; its parent must exist and be writable, and it must not exist yet"
    )]
    Create { path: PathBuf, source: Errno },
    #[error("the file {path} can't be written: {source}; it must not exist yet, and its directory must")]
    Write { path: PathBuf, source: Errno },
    #[error("{path} can't be removed: {source}; remove it by hand")]
    Remove { path: PathBuf, source: Errno },
}

impl From<&DirectoryError> for v1::Failure {
    fn from(error: &DirectoryError) -> Self {
        let (DirectoryError::Create { path, source }
        | DirectoryError::Write { path, source }
        | DirectoryError::Remove { path, source }) = error;
        v1::Failure {
            errno: source.raw_os_error(),
            message: error.to_string(),
            path: path.as_os_str().as_bytes().to_vec().into(),
        }
    }
}

/// Makes a directory only its owner may enter.
pub(crate) fn create(path: &Path) -> Result<(), DirectoryError> {
    fs::mkdir(path, Mode::RWXU).map_err(|source| DirectoryError::Create { path: path.into(), source })
}

/// Writes a file that doesn't exist yet, with exactly these permission bits.
pub(crate) fn write_file(path: &Path, content: &[u8], mode: u32) -> Result<(), DirectoryError> {
    let write = || -> Result<(), Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = fs::open(path, flags, Mode::RUSR | Mode::WUSR)?;
        let mut rest = content;
        while !rest.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::write(&file, rest))?;
            rest = &rest[written..];
        }
        fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777))
    };
    write().map_err(|source| DirectoryError::Write { path: path.into(), source })
}

/// Removes a directory with all it holds; one that doesn't exist is no error.
pub(crate) fn remove(path: &Path) -> Result<(), DirectoryError> {
    match fs::unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // Not empty, as a rule; whatever it is, emptying says it more exactly.
        Err(_) => {}
    }
    let emptied = open_directory(CWD, path).and_then(|root| {
        let mut removal = Removal { root: root.try_clone().map_err(|_| Errno::MFILE)?, moved: 0 };
        removal.empty(root, 0)
    });
    emptied
        .and_then(|()| fs::unlinkat(CWD, path, AtFlags::REMOVEDIR))
        .map_err(|source| DirectoryError::Remove { path: path.into(), source })
}

/// One removal under way.
struct Removal {
    root: OwnedFd,
    /// Directories moved up so far; names the next one.
    moved: u64,
}

impl Removal {
    fn empty(&mut self, directory: OwnedFd, depth: usize) -> Result<(), Errno> {
        let mut entries = Dir::read_from(&directory)?;
        loop {
            let mut removed = false;
            while let Some(entry) = entries.read() {
                let entry = entry?;
                let name = entry.file_name();
                if name == c"." || name == c".." {
                    continue;
                }
                match self.remove_entry(&directory, name, entry.file_type(), depth) {
                    // Somebody else was quicker: a program that takes its socket with it.
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(error) => return Err(error),
                }
                removed = true;
            }
            // What was moved up meanwhile, and what a file system skips when entries go while they are read.
            if !removed {
                return Ok(());
            }
            entries.rewind();
        }
    }

    fn remove_entry(&mut self, parent: &OwnedFd, name: &CStr, kind: FileType, depth: usize) -> Result<(), Errno> {
        if !matches!(kind, FileType::Directory | FileType::Unknown) {
            return writable(parent, || fs::unlinkat(parent, name, AtFlags::empty()));
        }
        if kind == FileType::Unknown {
            match fs::unlinkat(parent, name, AtFlags::empty()) {
                Ok(()) => return Ok(()),
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(error) => return Err(error),
            }
        }
        match writable(parent, || fs::unlinkat(parent, name, AtFlags::REMOVEDIR)) {
            Ok(()) => return Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        if depth >= DEPTH {
            return self.move_up(parent, name);
        }
        let child = open_directory(parent, name)?;
        self.empty(child, depth + 1)?;
        fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
    }

    fn move_up(&mut self, parent: &OwnedFd, name: &CStr) -> Result<(), Errno> {
        loop {
            self.moved += 1;
            let above = CString::new(format!(".executr-removed-{}", self.moved)).map_err(|_| Errno::INVAL)?;
            match fs::renameat(parent, name, &self.root, &above) {
                // Taken: by chance or by an earlier, interrupted removal.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR | Errno::ISDIR) => {}
                // Moving a directory rewrites its "..", so it must be writable itself.
                Err(Errno::ACCESS) => {
                    drop(open_directory(parent, name)?);
                    fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
                    return fs::renameat(parent, name, &self.root, &above);
                }
                done => return done,
            }
        }
    }
}

/// Opens a directory, never a link to one; one of ours that forbids it is made to allow it.
fn open_directory<P: rustix::path::Arg + Copy>(parent: impl AsFd, name: P) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match fs::openat(&parent, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            let found = fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
                return Err(Errno::NOTDIR);
            }
            fs::chmodat(&parent, name, Mode::RWXU, AtFlags::empty())?;
            fs::openat(&parent, name, flags, Mode::empty())
        }
        opened => opened,
    }
}

/// Tries `change`, and once more after making `directory` writable if that was what stood in the way.
fn writable(directory: &OwnedFd, change: impl Fn() -> Result<(), Errno>) -> Result<(), Errno> {
    match change() {
        Err(Errno::ACCESS) => {
            fs::fchmod(directory, Mode::RWXU)?;
            change()
        }
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir, create_dir_all, read_to_string, write};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn what_links_point_to_stays() {
        let temp = tempfile::tempdir().unwrap();
        let outside = temp.path().join("outside");
        create_dir(&outside).unwrap();
        write(outside.join("kept"), "kept").unwrap();
        let job = temp.path().join("job");
        create(&job).unwrap();
        symlink(&outside, job.join("link")).unwrap();
        create_dir_all(job.join("a/b/c")).unwrap();
        symlink("../../..", job.join("a/b/up")).unwrap();
        write(job.join("a/b/c/file"), "x").unwrap();
        remove(&job).unwrap();
        assert!(!job.exists());
        assert_eq!(read_to_string(outside.join("kept")).unwrap(), "kept");
    }

    #[test]
    fn a_link_in_the_place_of_the_directory_is_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let outside = temp.path().join("outside");
        create_dir(&outside).unwrap();
        write(outside.join("kept"), "kept").unwrap();
        let job = temp.path().join("job");
        symlink(&outside, &job).unwrap();
        assert!(matches!(remove(&job), Err(DirectoryError::Remove { .. })));
        assert!(outside.join("kept").exists());
    }

    #[test]
    fn deeper_than_path_names_allow() {
        let temp = tempfile::tempdir().unwrap();
        let job = temp.path().join("job");
        create(&job).unwrap();
        let mut at = open_directory(CWD, &job).unwrap();
        for _ in 0..300 {
            fs::mkdirat(&at, "some-deep-directory", Mode::RWXU).unwrap();
            write_file_at(&at);
            at = open_directory(&at, "some-deep-directory").unwrap();
        }
        drop(at);
        remove(&job).unwrap();
        assert!(!job.exists());
    }

    fn write_file_at(at: &OwnedFd) {
        fs::openat(at, "file", OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR).unwrap();
    }

    #[test]
    fn forbidding_directories_and_odd_names_go_too() {
        let temp = tempfile::tempdir().unwrap();
        let job = temp.path().join("job");
        create(&job).unwrap();
        create_dir(job.join("closed")).unwrap();
        write(job.join("closed/file"), "x").unwrap();
        write(job.join(std::ffi::OsStr::from_bytes(b"\xff\n -rf")), "x").unwrap();
        std::fs::set_permissions(job.join("closed"), std::fs::Permissions::from_mode(0o000)).unwrap();
        remove(&job).unwrap();
        assert!(!job.exists());
    }

    #[test]
    fn nothing_there_is_no_error() {
        let temp = tempfile::tempdir().unwrap();
        remove(&temp.path().join("never")).unwrap();
    }

    #[test]
    fn files_get_exactly_their_mode_and_never_replace() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("script");
        write_file(&path, b"#!/bin/sh\n", 0o757).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o757);
        let error = write_file(&path, b"other", 0o700).unwrap_err();
        assert!(matches!(error, DirectoryError::Write { source: Errno::EXIST, .. }), "{error}");
        assert_eq!(read_to_string(&path).unwrap(), "#!/bin/sh\n");
    }
}
