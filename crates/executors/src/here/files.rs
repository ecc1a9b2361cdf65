//! Single files, each written anew: none finds what a step made of it before.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::blocking;
use super::placing::make;
use crate::contract::{ExecutorError, FileToPut};

/// Writes files below `root`.
pub(crate) async fn put_files(root: &Path, files: Vec<FileToPut>) -> Result<(), ExecutorError> {
    let root = root.to_owned();
    let writing = blocking(move || {
        files.into_iter().try_for_each(|file| {
            write(&root, &file).map_err(|source| ExecutorError::File { path: file.path.clone(), source })
        })
    });
    writing.await?
}

/// Writes a file; what stands in its place is removed, and no link on the way leads out.
fn write(root: &Path, file: &FileToPut) -> io::Result<()> {
    let path = root.join(&file.path);
    if let Some(parent) = file.path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make(root, &root.join(parent))?;
    }
    match fs::symlink_metadata(&path) {
        Ok(there) if there.is_dir() => fs::remove_dir_all(&path)?,
        Ok(_) => fs::remove_file(&path)?,
        Err(_) => {}
    }
    let mut written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    written.write_all(&file.content)?;
    // Exactly: no mask is applied.
    written.set_permissions(Permissions::from_mode(file.mode))
}
