//! A blob on its way into a directory.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

use executr_spec::{Digest, Hasher};

use crate::blob_dir::BlobDirError;
use crate::file_lock::FileLock;

/// Bytes of a blob that isn't whole yet. Dropped before [`commit`](Self::commit), they stay for the next one to go on.
#[derive(Debug)]
pub struct Partial {
    path: PathBuf,
    target: PathBuf,
    digest: Digest,
    file: File,
    hasher: Hasher,
    length: u64,
    validator: Option<String>,
    _lock: FileLock,
}

impl Partial {
    pub(crate) fn open(path: PathBuf, target: PathBuf, digest: Digest, lock: FileLock) -> Result<Self, BlobDirError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(BlobDirError::io("open", &path))?;
        let mut hasher = Hasher::default();
        let length = hash_rest(&mut file, &mut hasher).map_err(BlobDirError::io("read", &path))?;
        let validator = fs::read_to_string(path.with_extension("validator")).ok();
        Ok(Self { path, target, digest, file, hasher, length, validator, _lock: lock })
    }

    /// Bytes that are there.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// What the source called the version these bytes are from, as [`set_validator`](Self::set_validator) was told.
    #[must_use]
    pub fn validator(&self) -> Option<&str> {
        self.validator.as_deref()
    }

    /// Notes what the source calls the version that is being brought.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn set_validator(&mut self, validator: &str) -> Result<(), BlobDirError> {
        let path = self.path.with_extension("validator");
        fs::write(&path, validator).map_err(BlobDirError::io("write", &path))?;
        self.validator = Some(validator.to_owned());
        Ok(())
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// When they can't be written.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), BlobDirError> {
        self.file.write_all(bytes).map_err(BlobDirError::io("write", &self.path))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Forgets the bytes that are there.
    ///
    /// # Errors
    /// When the file can't be emptied.
    pub fn restart(&mut self) -> Result<(), BlobDirError> {
        let mut empty = || {
            self.file.set_len(0)?;
            self.file.seek(SeekFrom::Start(0)).map(drop)
        };
        empty().map_err(BlobDirError::io("empty", &self.path))?;
        let _ = fs::remove_file(self.path.with_extension("validator"));
        (self.hasher, self.length, self.validator) = (Hasher::default(), 0, None);
        Ok(())
    }

    /// Gives the blob its name, once it is synced. Waits for the disk.
    ///
    /// # Errors
    /// [`BlobDirError::Mismatch`] when the bytes are others than asked for; they are then removed.
    pub fn commit(self) -> Result<(), BlobDirError> {
        let whole = self.verify()?;
        whole.0.file.sync_all().map_err(BlobDirError::io("sync", &whole.0.path))?;
        let target = whole.0.target.clone();
        whole.name()?;
        let parent = target.parent().unwrap_or(&target);
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(BlobDirError::io("sync", parent))
    }

    /// Looks whether all bytes are there; they aren't synced.
    pub(crate) fn verify(mut self) -> Result<Whole, BlobDirError> {
        let found = std::mem::take(&mut self.hasher).finish();
        if found != self.digest {
            self.remove();
            return Err(BlobDirError::Mismatch { expected: self.digest, found });
        }
        self.file.set_permissions(Permissions::from_mode(0o555)).map_err(BlobDirError::io("keep", &self.path))?;
        Ok(Whole(self))
    }

    /// Removes the bytes: nobody shall go on with them.
    pub fn abandon(self) {
        self.remove();
    }

    fn remove(&self) {
        // What can't be removed is found out by its digest later.
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(self.path.with_extension("validator"));
    }
}

/// A blob that has all its bytes, but not its name.
pub(crate) struct Whole(Partial);

impl Whole {
    /// Gives it its name. Its bytes must be synced by now; the directory is to be synced after.
    pub(crate) fn name(self) -> Result<(), BlobDirError> {
        // The lock goes last.
        let Partial { path, target, file, _lock, .. } = self.0;
        // A file open for writing can't be executed.
        drop(file);
        fs::rename(&path, &target).map_err(BlobDirError::io("keep", &target))?;
        let _ = fs::remove_file(path.with_extension("validator"));
        Ok(())
    }
}

fn hash_rest(file: &mut File, hasher: &mut Hasher) -> io::Result<u64> {
    let mut buffer = vec![0; 128 * 1024];
    let mut length = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(length),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                length += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
