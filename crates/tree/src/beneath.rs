//! Opening what stands below a directory, and never anything else: no link on the way is followed, wherever it points and
//! whenever it was put there.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
// A pipe in a file's place must not hold the reader up.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);
const INSIDE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Opens a directory that the caller names, links on the way to it followed: it is his.
///
/// # Errors
/// What the system says.
pub fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(rustix::fs::CWD, path, flags, Mode::empty())?)
}

/// Opens the directory at `path` below `root`.
///
/// # Errors
/// What the system says: `ELOOP` for a link on the way, `EXDEV` for a way out.
pub fn open_directory(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    open(root, path, DIRECTORY)
}

/// Opens the file at `path` below `root` for reading.
///
/// # Errors
/// As [`open_directory`].
pub fn open_file(root: BorrowedFd<'_>, path: &Path) -> io::Result<File> {
    open(root, path, FILE).map(File::from)
}

fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    if path.as_os_str().is_empty() {
        return Ok(openat(root, ".", flags, Mode::empty())?);
    }
    loop {
        match openat2(root, path, flags, Mode::empty(), INSIDE) {
            Ok(opened) => return Ok(opened),
            // Something was renamed meanwhile: the kernel can't tell, and asks to try again.
            Err(Errno::AGAIN | Errno::INTR) => {}
            // Kernels before 5.6, and sandboxes that filter calls.
            Err(Errno::NOSYS | Errno::PERM) => return step_by_step(root, path, flags),
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn step_by_step(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            _ => return Err(Errno::XDEV.into()),
        }
    }
    let Some((last, above)) = names.split_last() else { return Err(Errno::NOENT.into()) };
    let mut at: Option<OwnedFd> = None;
    for name in above {
        at = Some(openat(at.as_ref().map_or(root, AsFd::as_fd), *name, DIRECTORY, Mode::empty())?);
    }
    Ok(openat(at.as_ref().map_or(root, AsFd::as_fd), *last, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_is_opened_through_a_link_or_outside() {
        let temp = tempfile::tempdir().unwrap();
        let (inside, outside) = (temp.path().join("in"), temp.path().join("out"));
        fs::create_dir_all(inside.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        for path in [inside.join("a/b/f"), outside.join("f")] {
            fs::write(path, "x").unwrap();
        }
        symlink(&outside, inside.join("link")).unwrap();
        symlink("f", inside.join("a/b/g")).unwrap();
        let root = open_root(&inside).unwrap();
        type Open = fn(BorrowedFd<'_>, &Path, OFlags) -> io::Result<OwnedFd>;
        for open in [open as Open, step_by_step] {
            assert!(open(root.as_fd(), Path::new("a/b/f"), FILE).is_ok());
            assert!(open(root.as_fd(), Path::new("a/b"), DIRECTORY).is_ok());
            for path in ["link/f", "../out/f", "/etc/passwd", "a/b/g", "a/b/none", "a/../../out/f"] {
                assert!(open(root.as_fd(), Path::new(path), FILE).is_err(), "{path}");
            }
            assert!(open(root.as_fd(), Path::new("link"), DIRECTORY).is_err());
        }
    }
}
