//! Blobs and uploads: files beside the database, named in it.
//!
//! `blobs/ab/cdef…` by digest, `uploads/<id>` while they arrive. An upload doesn't outlive the process. Directories are made
//! with the first file in them.
//!
//! A file is on the disk before its row is, and goes after it. So what a crash leaves is a file without a row, which is
//! deleted sooner or later. A row whose file somebody else took away counts as none.
//!
//! With a directory that is shared, files have a second name there: see `SqliteOptions::shared_blobs`.

use std::collections::HashMap;
use std::fs::{File, Permissions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use executr_spec::{Digest, Hasher, Timestamp};
use uuid::Uuid;

use super::error::from_file;
use crate::{BLOB_CHUNK, StoreError};

/// So many files are looked at in one go, and those of one more directory.
const LOOKED_AT: usize = 1_000;

/// So many bytes are hashed at a time.
const HASHED_AT_A_TIME: usize = 256 * 1024;

/// The files, and the uploads that go on.
#[derive(Debug)]
pub(super) struct Blobs {
    blobs: PathBuf,
    uploads: PathBuf,
    shared: Option<PathBuf>,
    synced: bool,
    /// How long each upload is, and when it last grew.
    going_on: Mutex<HashMap<Uuid, (u64, Timestamp)>>,
    /// Where [`next_files`](Self::next_files) goes on.
    next: AtomicU8,
}

impl Blobs {
    pub(super) fn new(directory: &Path, shared: Option<PathBuf>, synced: bool) -> Result<Self, StoreError> {
        let (blobs, uploads) = (directory.join("blobs"), directory.join("uploads"));
        if uploads.exists() {
            std::fs::remove_dir_all(&uploads).map_err(from_file(&uploads))?;
        }
        Ok(Self { blobs, uploads, shared, synced, going_on: Mutex::default(), next: AtomicU8::default() })
    }

    pub(super) fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    fn path(&self, digest: Digest) -> PathBuf {
        let text = digest.to_string();
        let (directory, name) = text.split_at(2);
        self.blobs.join(directory).join(name)
    }

    fn upload_path(&self, upload: Uuid) -> PathBuf {
        self.uploads.join(upload.to_string())
    }

    fn going_on(&self) -> MutexGuard<'_, HashMap<Uuid, (u64, Timestamp)>> {
        self.going_on.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts or continues an upload.
    pub(super) fn append(&self, upload: Uuid, offset: u64, bytes: &[u8], now: Timestamp) -> Result<(), StoreError> {
        let end = self.going_on().get(&upload).map_or(0, |(end, _)| *end);
        if offset != 0 && offset != end {
            return Err(StoreError::UploadGap { end, offset });
        }
        let path = self.upload_path(upload);
        let write = || {
            if offset == 0 {
                std::fs::create_dir_all(&self.uploads)?;
            }
            let mut file = File::options().write(true).create(true).truncate(offset == 0).open(&path)?;
            file.seek(SeekFrom::Start(offset))?;
            file.write_all(bytes)
        };
        write().map_err(from_file(&path))?;
        self.going_on().insert(upload, (offset + bytes.len() as u64, now));
        Ok(())
    }

    /// How long an upload is, if there is one.
    pub(super) fn uploaded(&self, upload: Uuid) -> Option<u64> {
        self.going_on().get(&upload).map(|(end, _)| *end)
    }

    /// Makes the upload a blob's file, on disk where the store is synced.
    pub(super) fn keep(&self, upload: Uuid, digest: Digest) -> Result<(), StoreError> {
        let (from, to) = (self.upload_path(upload), self.path(digest));
        let is_first = self.make_directory(&to)?;
        std::fs::create_dir_all(&self.uploads).map_err(from_file(&self.uploads))?;
        let keep = || {
            // Nothing was ever appended to an empty blob's upload.
            let file = File::options().write(true).create(true).truncate(false).open(&from)?;
            if self.shared.is_some() {
                // It may be a program, and is nobody's to write to.
                file.set_permissions(Permissions::from_mode(0o555))?;
            }
            if self.synced {
                file.sync_all()?;
            }
            std::fs::rename(&from, &to)
        };
        keep().map_err(from_file(&from))?;
        self.sync_name(&to, is_first)?;
        self.share(digest, &to);
        self.going_on().remove(&upload);
        Ok(())
    }

    /// Makes the directory of a blob's file; whether it is the first of all.
    fn make_directory(&self, file: &Path) -> Result<bool, StoreError> {
        let is_first = !self.blobs.exists();
        let directory = file.parent().unwrap_or(&self.blobs);
        std::fs::create_dir_all(directory).map_err(from_file(directory))?;
        Ok(is_first)
    }

    /// Brings the name of a blob's file to the disk, where the store is synced.
    fn sync_name(&self, file: &Path, is_first: bool) -> Result<(), StoreError> {
        let above = self.blobs.parent().filter(|_| is_first);
        for directory in [file.parent(), Some(&self.blobs), above].into_iter().flatten().filter(|_| self.synced) {
            File::open(directory).and_then(|opened| opened.sync_all()).map_err(from_file(directory))?;
        }
        Ok(())
    }

    /// Gives a blob's file its name where others look for it.
    fn share(&self, digest: Digest, file: &Path) {
        let Some(shared) = &self.shared else { return };
        let name = shared.join(digest.to_string());
        let linked = std::fs::create_dir_all(shared).and_then(|()| std::fs::hard_link(file, &name));
        if let Err(error) = linked.or_else(|error| if name.exists() { Ok(()) } else { Err(error) }) {
            // They get it by another way, and have it twice.
            tracing::debug!(%error, blob = %name.display(), "a blob can't be shared");
        }
    }

    /// Takes a blob over that others have, once its bytes are found to be right, and returns its length; `None` when they
    /// don't have it.
    pub(super) fn take_shared(&self, digest: Digest) -> Result<Option<u64>, StoreError> {
        let Some(shared) = &self.shared else { return Ok(None) };
        let (from, to) = (shared.join(digest.to_string()), self.path(digest));
        // Not a link, or whatever else somebody put there.
        if !std::fs::symlink_metadata(&from).is_ok_and(|found| found.is_file()) {
            return Ok(None);
        }
        // Of two who take the same, each has a name of its own until one takes the other's place, so nobody misses the blob.
        std::fs::create_dir_all(&self.uploads).map_err(from_file(&self.uploads))?;
        let taken = self.upload_path(Uuid::new_v4());
        if let Err(error) = std::fs::hard_link(&from, &taken) {
            // Gone meanwhile, or its file system has no more names for it: it comes as any other.
            tracing::debug!(%error, blob = %from.display(), "a blob can't be taken over");
            return Ok(None);
        }
        let size = self.keep_taken(&taken, digest, &to);
        // Stays also where both were names of one file already.
        delete(&taken)?;
        let size = size?;
        if size.is_none() {
            tracing::warn!(blob = %from.display(), "a shared blob was changed by somebody; it is removed and comes anew");
            delete(&from)?;
        }
        Ok(size)
    }

    /// Makes the file `taken` a blob's; its length, or `None` when its bytes are others.
    fn keep_taken(&self, taken: &Path, digest: Digest, to: &Path) -> Result<Option<u64>, StoreError> {
        let (found, size) = hash(taken).map_err(from_file(taken))?;
        if found != digest {
            return Ok(None);
        }
        let is_first = self.make_directory(to)?;
        std::fs::rename(taken, to).map_err(from_file(to))?;
        self.sync_name(to, is_first)?;
        Ok(Some(size))
    }

    /// Forgets an upload.
    pub(super) fn drop_upload(&self, upload: Uuid) -> Result<(), StoreError> {
        if self.going_on().remove(&upload).is_none() {
            return Ok(());
        }
        delete(&self.upload_path(upload))
    }

    /// Forgets uploads that didn't grow since `before`; returns how many.
    pub(super) fn drop_uploads(&self, before: Timestamp) -> Result<u64, StoreError> {
        let old: Vec<Uuid> = {
            let going_on = self.going_on();
            going_on.iter().filter(|(_, (_, at))| *at < before).map(|(upload, _)| *upload).collect()
        };
        for upload in &old {
            self.drop_upload(*upload)?;
        }
        Ok(old.len() as u64)
    }

    /// Whether the blob's file is there with all its bytes.
    pub(super) fn is_there(&self, digest: Digest, size: u64) -> Result<bool, StoreError> {
        let path = self.path(digest);
        match std::fs::metadata(&path) {
            Ok(found) => Ok(found.len() == size),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(from_file(&path)(error)),
        }
    }

    /// The blobs of which there are files: of a few of them, at each call the next, or of all when they are few.
    pub(super) fn next_files(&self) -> Result<Vec<Digest>, StoreError> {
        let mut found = Vec::new();
        for _ in 0..=u8::MAX {
            let directory = format!("{:02x}", self.next.fetch_add(1, Ordering::Relaxed));
            let path = self.blobs.join(&directory);
            let entries = match std::fs::read_dir(&path) {
                Ok(entries) => entries,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(from_file(&path)(error)),
            };
            for entry in entries {
                let name = entry.map_err(from_file(&path))?.file_name();
                // What has another name was put there by somebody else.
                found.extend(name.to_str().and_then(|name| format!("{directory}{name}").parse::<Digest>().ok()));
            }
            if found.len() >= LOOKED_AT {
                break;
            }
        }
        Ok(found)
    }

    /// Some of a blob. `None`: there is no such file.
    pub(super) fn read(&self, digest: Digest, offset: u64) -> Result<Option<Bytes>, StoreError> {
        let path = self.path(digest);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(from_file(&path)(error)),
        };
        let mut bytes = Vec::new();
        let mut read = || {
            let size = file.metadata()?.len();
            let length = size.saturating_sub(offset).min(BLOB_CHUNK as u64);
            // At most BLOB_CHUNK.
            bytes.reserve_exact(length as usize);
            file.seek(SeekFrom::Start(offset.min(size)))?;
            (&file).take(length).read_to_end(&mut bytes)
        };
        read().map_err(from_file(&path))?;
        Ok(Some(bytes.into()))
    }

    /// Deletes a blob's file.
    pub(super) fn delete(&self, digest: Digest) -> Result<(), StoreError> {
        delete(&self.path(digest))
    }
}

/// A file's digest and length.
fn hash(path: &Path) -> std::io::Result<(Digest, u64)> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::default();
    let mut bytes = vec![0; HASHED_AT_A_TIME.min(file.metadata()?.len().saturating_add(1) as usize)];
    let mut size = 0;
    loop {
        match file.read(&mut bytes) {
            Ok(0) => return Ok((hasher.finish(), size)),
            Ok(read) => {
                hasher.update(&bytes[..read]);
                size += read as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn delete(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(from_file(path)(error)),
        _ => Ok(()),
    }
}
