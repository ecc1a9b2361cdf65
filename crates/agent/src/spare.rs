//! An empty directory kept from one task for the next.
//!
//! Making and removing a directory costs more than the rest of a short task on file systems that look for a fresh inode
//! each time. So a directory that a task left as it got it is renamed away instead of removed, and renamed into
//! place instead of made. Any sign that it isn't as new (an entry, other permissions or owner, an attribute) and it is removed.

use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};

use executr_agent_protocol::SPARE_PREFIX;
use rustix::fs::{self, AtFlags, CWD, Mode, OFlags, RawDir, RenameFlags};
use rustix::io::Errno;

use crate::directory::{self, DirectoryError};

/// The directory kept, if any. Removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Spare {
    name: String,
    kept: Option<PathBuf>,
}

impl Spare {
    pub(crate) fn new() -> Self {
        Self { name: format!("{SPARE_PREFIX}{}", std::process::id()), kept: None }
    }

    /// Makes a directory only its owner may enter.
    pub(crate) fn create(&mut self, path: &Path) -> Result<(), DirectoryError> {
        if let Some(kept) = self.kept.take_if(|kept| kept.parent() == path.parent()) {
            match fs::renameat_with(CWD, &kept, CWD, path, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(()),
                // Taken away by whoever cleans up here, or the file system can't do this: made the usual way.
                Err(Errno::NOENT | Errno::INVAL | Errno::NOSYS) => {}
                Err(_) => self.kept = Some(kept),
            }
        }
        directory::create(path)
    }

    /// Removes a directory with all it holds, or keeps it for the next task.
    pub(crate) fn remove(&mut self, path: &Path) -> Result<(), DirectoryError> {
        if self.kept.is_none() && is_as_new(path).is_ok_and(|is| is) {
            let spare = path.with_file_name(&self.name);
            if fs::renameat_with(CWD, path, CWD, &spare, RenameFlags::NOREPLACE).is_ok() {
                self.kept = Some(spare);
                return Ok(());
            }
        }
        directory::remove(path)
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        if let Some(kept) = &self.kept {
            // It is empty; what stays is removed by the next worker that starts here.
            let _ = fs::unlinkat(CWD, kept, AtFlags::REMOVEDIR);
        }
    }
}

/// Whether a directory is as [`directory::create`] makes it.
fn is_as_new(path: &Path) -> Result<bool, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = fs::open(path, flags, Mode::empty())?;
    let mut room = [MaybeUninit::uninit(); 512];
    let mut entries = RawDir::new(&directory, &mut room);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            return Ok(false);
        }
    }
    let found = fs::fstat(&directory)?;
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let owned = found.st_uid == uid.as_raw() && found.st_gid == gid.as_raw();
    let private = Mode::from_raw_mode(found.st_mode) == Mode::RWXU;
    Ok(owned && private && fs::flistxattr(&directory, &mut [0_u8; 0][..])? == 0)
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, create_dir, metadata, set_permissions, write};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    fn inode(path: &Path) -> u64 {
        metadata(path).unwrap().ino()
    }

    #[test]
    fn an_untouched_directory_serves_the_next_task() {
        let temp = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| temp.path().join(name));
        let mut spare = Spare::new();
        spare.create(&first).unwrap();
        let made = inode(&first);
        spare.remove(&first).unwrap();
        assert!(!first.exists());
        spare.create(&second).unwrap();
        assert_eq!(inode(&second), made);
        spare.remove(&second).unwrap();
        drop(spare);
        assert_eq!(temp.path().read_dir().unwrap().count(), 0, "nothing stays");
    }

    #[test]
    fn a_directory_that_was_changed_is_removed() {
        let temp = tempfile::tempdir().unwrap();
        let job = temp.path().join("job");
        type Change = fn(&Path);
        let changes: [Change; 3] = [
            |job| write(job.join("file"), "x").unwrap(),
            |job| create_dir(job.join("directory")).unwrap(),
            |job| set_permissions(job, Permissions::from_mode(0o755)).unwrap(),
        ];
        for change in changes {
            let mut spare = Spare::new();
            spare.create(&job).unwrap();
            change(&job);
            spare.remove(&job).unwrap();
            assert_eq!(temp.path().read_dir().unwrap().count(), 0);
        }
    }

    #[test]
    fn what_stands_in_the_way_is_never_replaced() {
        let temp = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| temp.path().join(name));
        let mut spare = Spare::new();
        spare.create(&first).unwrap();
        spare.remove(&first).unwrap();
        create_dir(&second).unwrap();
        assert!(matches!(spare.create(&second), Err(DirectoryError::Create { source: Errno::EXIST, .. })));
        // A spare that somebody removed costs nothing but itself.
        std::fs::remove_dir(temp.path().join(&spare.name)).unwrap();
        spare.create(&first).unwrap();
        assert!(first.is_dir());
    }
}
