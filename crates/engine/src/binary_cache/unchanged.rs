//! How a file is known to be the one that was verified, without reading it again.
//!
//! Reading a program whole before each run tells two things apart from what was verified: bytes changed through the
//! file system, and bytes that rotted on the disk below it. The kernel notes the first: every write, truncation or
//! change of mode sets the time of change (ctime) from its own clock, and no call sets it to anything else; a file put
//! in the place of another has another inode. A file that is open or mapped for writing can't be executed at all
//! (ETXTBSY). So while device, inode, size, mtime and ctime are those of the file that was verified, a second reading
//! would find the same, short of rot, which the page cache mostly hides from a second reading as well.
//!
//! The kernel's clock for this moves in ticks of up to 10 ms: a file changed in the tick in which it was verified looks
//! unchanged. So only a file whose last change is some time past is known by these marks; until then it is read again.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

/// Well above a tick.
const SETTLED_AFTER: Duration = Duration::from_millis(100);

/// The marks of one state of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unchanged {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Unchanged {
    /// The marks of an open file.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// Whether any change after `now` would show in the marks.
    pub(super) fn is_tellable_at(&self, now: SystemTime) -> bool {
        let (Ok(seconds), Ok(nanos)) = (u64::try_from(self.changed.0), u32::try_from(self.changed.1)) else {
            return false;
        };
        let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
        now.duration_since(changed).is_ok_and(|since| since >= SETTLED_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, PermissionsExt};

    use super::*;

    #[test]
    fn any_change_shows() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("program");
        let open = || File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        let file = open();
        file.write_all_at(b"one", 0).unwrap();
        let before = Unchanged::of(&file).unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        // The same bytes written again, as soon as the kernel's clock has moved.
        while Unchanged::of(&file).unwrap() == before {
            assert!(std::time::Instant::now() < deadline, "a write never showed");
            file.write_all_at(b"one", 0).unwrap();
            file.set_modified(
                SystemTime::UNIX_EPOCH + Duration::new(before.modified.0 as u64, before.modified.1 as u32),
            )
            .unwrap();
        }
        let written = Unchanged::of(&file).unwrap();
        std::fs::remove_file(&path).unwrap();
        let other = open();
        other.write_all_at(b"one", 0).unwrap();
        other.set_permissions(std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_ne!(Unchanged::of(&other).unwrap(), written);
    }

    #[test]
    fn a_file_just_changed_is_not_known_by_its_marks() {
        let file = tempfile::tempfile().unwrap();
        let marks = Unchanged::of(&file).unwrap();
        let changed = SystemTime::UNIX_EPOCH + Duration::new(marks.changed.0 as u64, marks.changed.1 as u32);
        assert!(!marks.is_tellable_at(changed));
        assert!(!marks.is_tellable_at(changed - Duration::from_secs(1)));
        assert!(marks.is_tellable_at(changed + SETTLED_AFTER));
    }
}
