//! Directories removed, whatever modes are within.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Removes a directory and all in it. Follows no link. One that isn't there is removed.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            // Layers hold directories that their owner may not write to, or even look into.
            open_up(path)?;
            fs::remove_dir_all(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn open_up(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_hold_nothing_up_and_links_lead_nowhere() {
        let temp = tempfile::tempdir().unwrap();
        let [tree, other] = ["tree", "other"].map(|name| temp.path().join(name));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(tree.join("a/b/c"), "").unwrap();
        std::os::unix::fs::symlink(&other, tree.join("a/b/link")).unwrap();
        fs::set_permissions(tree.join("a/b"), fs::Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(tree.join("a"), fs::Permissions::from_mode(0o555)).unwrap();
        open_up(&tree).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && other.exists());
        remove_tree(&tree).unwrap();
    }
}
