//! As whom a task runs, looked up where it runs, and files given to that user.
//!
//! The C library's own look-up loads more libraries at run time, which a static program can't rely on, and which an
//! image needn't have: the two files are read here.

use std::ffi::CStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use executr_agent_protocol::v1;
use rustix::fs::{self, AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

/// A user, in the numbers the kernel knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// All groups, `gid` among them.
    pub(crate) groups: Vec<u32>,
}

/// Why somebody can't run a task.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum IdentityError {
    #[error("there is no user `{0}` in the image's /etc/passwd; name one that is there, or write its number")]
    NoUser(String),
    #[error("there is no group `{0}` in the image's /etc/group; name one that is there, or write its number")]
    NoGroup(String),
    #[error("{path} can't be given to the step's user: {source}", path = path.display())]
    Give { path: PathBuf, source: Errno },
}

impl From<&IdentityError> for v1::Failure {
    fn from(error: &IdentityError) -> Self {
        let (errno, path) = match error {
            IdentityError::Give { path, source } => (source.raw_os_error(), path.as_os_str().as_bytes().to_vec()),
            IdentityError::NoUser(_) | IdentityError::NoGroup(_) => (libc::EINVAL, Vec::new()),
        };
        v1::Failure { errno, message: error.to_string(), path: path.into() }
    }
}

impl Identity {
    /// Whom `user` or `user:group` means here.
    pub(crate) fn find(text: &str) -> Result<Self, IdentityError> {
        // One that isn't there knows nobody.
        let read = |path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
        Self::among(text, &read("/etc/passwd"), &read("/etc/group"))
    }

    fn among(text: &str, passwd: &str, group: &str) -> Result<Self, IdentityError> {
        let (user, wanted_group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
            None => (text, None),
        };
        let known = entries(passwd).find(|entry| entry.name == user || entry.id.to_string() == user);
        let (uid, own_group) = match &known {
            Some(entry) => (entry.id, entry.rest.first().and_then(|gid| gid.parse().ok()).unwrap_or(0)),
            None => (user.parse().map_err(|_| IdentityError::NoUser(user.to_owned()))?, 0),
        };
        if let Some(wanted) = wanted_group {
            let found = entries(group).find(|entry| entry.name == wanted).map(|entry| entry.id);
            let gid = found.or_else(|| wanted.parse().ok());
            let gid = gid.ok_or_else(|| IdentityError::NoGroup(wanted.to_owned()))?;
            return Ok(Self { uid, gid, groups: vec![gid] });
        }
        let mut groups = vec![own_group];
        if let Some(known) = known {
            let of = entries(group).filter(|entry| {
                entry.rest.first().is_some_and(|members| members.split(',').any(|member| member == known.name))
            });
            groups.extend(of.map(|entry| entry.id).filter(|gid| *gid != own_group));
        }
        Ok(Self { uid, gid: own_group, groups })
    }
}

/// A line of one of the two files: a name, a password, a number, more.
struct Entry<'text> {
    name: &'text str,
    id: u32,
    rest: Vec<&'text str>,
}

fn entries(text: &str) -> impl Iterator<Item = Entry<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password, id) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Entry { name, id: id.parse().ok()?, rest: fields.collect() })
    })
}

/// Gives a file, or a directory with all it holds, to a user. Symbolic links are given, never followed.
pub(crate) fn give(path: &Path, identity: &Identity) -> Result<(), IdentityError> {
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    give_below(CWD, path, uid, gid).map_err(|source| IdentityError::Give { path: path.into(), source })
}

fn give_below<P: rustix::path::Arg + Copy>(parent: impl AsFd, name: P, uid: Uid, gid: Gid) -> Result<(), Errno> {
    let found = fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let is_directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
    if is_directory {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = fs::openat(&parent, name, flags, Mode::empty())?;
        let mut entries = Dir::read_from(&directory)?;
        while let Some(entry) = entries.read() {
            let entry = entry?;
            let name: &CStr = entry.file_name();
            if name != c"." && name != c".." {
                give_below(&directory, name, uid, gid)?;
            }
        }
    }
    if (found.st_uid, found.st_gid) == (uid.as_raw(), gid.as_raw()) {
        return Ok(());
    }
    fs::chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1001::/home/ann:/bin/sh\nbroken\n12:x:7:7:::\n";
    const GROUP: &str = "root:x:0:\nann:x:1001:\nwheel:x:10:root,ann\nbuild:x:20:bob,ann\n";

    fn among(text: &str) -> Result<(u32, u32, Vec<u32>), IdentityError> {
        let found = Identity::among(text, PASSWD, GROUP)?;
        Ok((found.uid, found.gid, found.groups))
    }

    #[test]
    fn names_and_numbers_are_the_images_own() {
        assert_eq!(among("ann"), Ok((1000, 1001, vec![1001, 10, 20])));
        assert_eq!(among("1000"), Ok((1000, 1001, vec![1001, 10, 20])));
        assert_eq!(among("ann:wheel"), Ok((1000, 10, vec![10])));
        assert_eq!(among("5:6"), Ok((5, 6, vec![6])));
        assert_eq!(among("5"), Ok((5, 0, vec![0])), "nobody's number has no group of its own");
        assert_eq!(among("ann:"), among("ann"));
    }

    #[test]
    fn whoever_is_not_there_is_named() {
        assert_eq!(among("bob"), Err(IdentityError::NoUser("bob".to_owned())));
        assert_eq!(among("ann:staff"), Err(IdentityError::NoGroup("staff".to_owned())));
        assert!(Identity::among("ann", "", "").is_err());
        assert_eq!(Identity::among("0", "", "").map(|found| (found.uid, found.gid)), Ok((0, 0)));
    }

    #[test]
    fn what_is_given_already_is_left_alone_and_links_are_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let own = Identity {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            groups: Vec::new(),
        };
        std::fs::create_dir_all(temp.path().join("a/b")).unwrap();
        std::os::unix::fs::symlink("/proc/1/root", temp.path().join("a/link")).unwrap();
        std::fs::write(temp.path().join("a/b/file"), "x").unwrap();
        give(&temp.path().join("a"), &own).unwrap();
        let missing = give(&temp.path().join("none"), &own).unwrap_err();
        assert!(matches!(missing, IdentityError::Give { source: Errno::NOENT, .. }), "{missing}");
    }
}
