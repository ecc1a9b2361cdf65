//! A directory of blobs.
//!
//! ```text
//! ROOT/<sha256>              a whole blob, mode 0555: it may be a program. Stores of the same user give some of them a second name
//! ROOT/.partial/<sha256>     one on its way, with `.lock` (who brings it) and `.validator` beside it
//! ROOT/.partial/arriving-*   one whose name isn't known yet
//! ROOT/.used/<sha256>        empty; its time of modification is when the blob was last used
//! ROOT/.leases/<process>-<n> the digests of blobs that a living process wants to stay
//! ```
//!
//! A blob gets its name by a rename after it was verified and synced, so whatever dies at whatever moment, what stands
//! under a name is what the name says, unless somebody changed it afterwards.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use executr_spec::Digest;
use thiserror::Error;

use crate::arriving::{self, Arrived, Arriving};
use crate::blob_lease::{self, BlobLease};
use crate::file_lock::FileLock;
use crate::partial::Partial;
use crate::source::BlobSource;

/// So many blobs are synced one by one.
const FEW: usize = 3;

/// A directory that holds blobs; several processes may share it.
#[derive(Clone, Debug)]
pub struct BlobDir {
    root: PathBuf,
}

/// A blob in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobEntry {
    /// Its name.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// When it was last used, by any process that says so with [`BlobDir::touch`].
    pub used: SystemTime,
}

/// What living leases name.
#[derive(Debug)]
pub struct Leased {
    digests: HashSet<Digest>,
    _gate: blob_lease::Gate,
}

impl Leased {
    /// Whether a lease names it.
    #[must_use]
    pub fn contains(&self, digest: Digest) -> bool {
        self.digests.contains(&digest)
    }
}

/// Why the directory doesn't do what was asked.
#[derive(Debug, Error)]
pub enum BlobDirError {
    /// The system refused.
    #[error("cannot {action} {}: {source}; check that it is writable and has space left", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The bytes are others than asked for.
    #[error("the bytes have SHA-256 {found}, not {expected}")]
    Mismatch {
        /// What they should hash to.
        expected: Digest,
        /// What they do hash to.
        found: Digest,
    },
}

impl BlobDirError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

impl BlobDir {
    /// Opens the directory, making it when it isn't there.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, BlobDirError> {
        let root = root.into();
        for directory in [&root, &root.join(".partial"), &root.join(".used"), &root.join(".leases")] {
            fs::create_dir_all(directory).map_err(BlobDirError::io("make the directory", directory))?;
        }
        Ok(Self { root })
    }

    /// Where a blob stands when it is there.
    #[must_use]
    pub fn path(&self, digest: Digest) -> PathBuf {
        self.root.join(digest.to_string())
    }

    /// Opens a blob for reading and keeps it from being evicted, by any process, while the file is open. `None` when it
    /// isn't there. Its content isn't looked at.
    ///
    /// # Errors
    /// When it is there and can't be opened.
    pub fn hold(&self, digest: Digest) -> Result<Option<File>, BlobDirError> {
        let path = self.path(digest);
        loop {
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(BlobDirError::io("open", &path)(error)),
            };
            // Blocks only while another process evicts it, and then it is gone.
            file.lock_shared().map_err(BlobDirError::io("lock", &path))?;
            // The file may have names elsewhere too, so that it has one says nothing.
            let held = rustix::fs::fstat(&file).map_err(|errno| BlobDirError::io("look at", &path)(errno.into()))?;
            if rustix::fs::stat(&path).is_ok_and(|named| (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)) {
                return Ok(Some(file));
            }
        }
    }

    /// Whether a blob is there, now.
    #[must_use]
    pub fn has(&self, digest: Digest) -> bool {
        fs::symlink_metadata(self.path(digest)).is_ok()
    }

    /// All bytes of a blob; `None` when it isn't there.
    ///
    /// # Errors
    /// When it is there and can't be read.
    pub fn read(&self, digest: Digest) -> Result<Option<Vec<u8>>, BlobDirError> {
        let Some(mut file) = self.hold(digest)? else { return Ok(None) };
        let mut bytes = Vec::new();
        let path = self.path(digest);
        io::Read::read_to_end(&mut file, &mut bytes).map_err(BlobDirError::io("read", &path))?;
        Ok(Some(bytes))
    }

    /// Keeps blobs from being evicted by [`trim`](Self::trim), by any process, while the lease lives; those too that come
    /// only later.
    ///
    /// # Errors
    /// When the lease can't be written.
    pub fn lease(&self, digests: &[Digest]) -> Result<BlobLease, BlobDirError> {
        let leases = self.root.join(".leases");
        BlobLease::take(&leases, digests).map_err(BlobDirError::io("write a lease in", &leases))
    }

    /// What living leases name now. Nobody takes another while the answer is held: whatever else is kept by these leases can
    /// be removed meanwhile.
    ///
    /// # Errors
    /// When the leases can't be read.
    pub fn leased(&self) -> Result<Leased, BlobDirError> {
        let leases = self.root.join(".leases");
        let read = || {
            let gate = blob_lease::gate(&leases)?.alone()?;
            let digests = gate.leased(&leases)?;
            Ok(Leased { digests, _gate: gate })
        };
        read().map_err(BlobDirError::io("look at the leases in", &leases))
    }

    /// Removes blobs until the rest has at most `bytes`, the least recently used first; none that is held or leased. How
    /// many bytes are left.
    ///
    /// # Errors
    /// When the directory can't be read or a blob can't be removed.
    pub fn trim(&self, bytes: u64) -> Result<u64, BlobDirError> {
        let leased = self.leased()?;
        let mut entries = self.entries()?;
        entries.sort_by_key(|entry| entry.used);
        let mut left: u64 = entries.iter().map(|entry| entry.size).sum();
        for entry in entries {
            if left <= bytes {
                break;
            }
            if !leased.contains(entry.digest) && self.evict(entry.digest)? {
                left -= entry.size;
            }
        }
        Ok(left)
    }

    /// Gives many blobs their names, as [`Partial::commit`] does one, waiting for the disk but once.
    ///
    /// # Errors
    /// [`BlobDirError::Mismatch`] for the first whose bytes are others than asked for; the good ones have their names then.
    pub fn commit_all(&self, partials: Vec<Partial>) -> Result<(), BlobDirError> {
        // A sync of the whole filesystem waits for what others write too: not worth it for a few.
        if partials.len() <= FEW {
            return partials.into_iter().try_for_each(Partial::commit);
        }
        let mut wrong = None;
        let mut ready = Vec::with_capacity(partials.len());
        for partial in partials {
            match partial.verify() {
                Ok(partial) => ready.push(partial),
                Err(error) => wrong = wrong.or(Some(error)),
            }
        }
        let directory = File::open(&self.root).map_err(BlobDirError::io("open", &self.root))?;
        let sync = rustix::fs::syncfs(&directory);
        sync.map_err(|errno| BlobDirError::io("sync", &self.root)(errno.into()))?;
        for partial in ready {
            partial.name()?;
        }
        directory.sync_all().map_err(BlobDirError::io("sync", &self.root))?;
        wrong.map_or(Ok(()), Err)
    }

    /// Begins a blob whose name its bytes will tell.
    pub(crate) fn arrive(&self) -> Result<Arriving, BlobDirError> {
        Arriving::begin(&self.root.join(".partial"))
    }

    /// Gives blobs that have arrived their names, waiting for the disk but once, and keeps them while the lease lives.
    pub(crate) fn keep(&self, blobs: Vec<Arrived>) -> Result<BlobLease, BlobDirError> {
        let digests: Vec<Digest> = blobs.iter().map(|blob| blob.digest).collect();
        let lease = self.lease(&digests)?;
        let new: Vec<Arrived> = blobs.into_iter().filter(|blob| !self.has(blob.digest)).collect();
        if new.is_empty() {
            return Ok(lease);
        }
        let directory = File::open(&self.root).map_err(BlobDirError::io("open", &self.root))?;
        if new.len() <= FEW {
            new.iter().try_for_each(Arrived::sync)?;
        } else {
            let sync = rustix::fs::syncfs(&directory);
            sync.map_err(|errno| BlobDirError::io("sync", &self.root)(errno.into()))?;
        }
        for blob in new {
            let path = self.path(blob.digest);
            blob.name(&path)?;
        }
        directory.sync_all().map_err(BlobDirError::io("sync", &self.root))?;
        Ok(lease)
    }

    /// Starts bringing a blob, or goes on where one that died left off; `None` while another process is at it.
    ///
    /// # Errors
    /// When files can't be made or read.
    pub fn bring(&self, digest: Digest) -> Result<Option<Partial>, BlobDirError> {
        let path = self.root.join(".partial").join(digest.to_string());
        let lock_path = path.with_extension("lock");
        match FileLock::try_acquire(&lock_path).map_err(BlobDirError::io("lock", &lock_path))? {
            Some(lock) => Partial::open(path, self.path(digest), digest, lock).map(Some),
            None => Ok(None),
        }
    }

    /// Takes in a file of the same file system as a blob, once it is synced. Its digest is believed: whoever wrote the file
    /// hashed what he wrote.
    ///
    /// # Errors
    /// When it can't be synced or moved.
    pub fn take_in(&self, file: &Path, digest: Digest) -> Result<(), BlobDirError> {
        let target = self.path(digest);
        let take = || {
            let opened = File::open(file)?;
            opened.set_permissions(Permissions::from_mode(0o555))?;
            opened.sync_all()?;
            fs::rename(file, &target)?;
            File::open(&self.root)?.sync_all()
        };
        take().map_err(BlobDirError::io("keep", &target))
    }

    /// Removes blobs on their way that nobody brings and nobody has added to for `kept`.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub fn forget_partials(&self, kept: Duration) -> Result<(), BlobDirError> {
        let directory = self.root.join(".partial");
        for entry in fs::read_dir(&directory).map_err(BlobDirError::io("list", &directory))?.flatten() {
            let name = entry.file_name();
            let age = entry.metadata().and_then(|metadata| metadata.modified()).map(|time| time.elapsed());
            let is_old = matches!(age, Ok(Ok(age)) if age > kept);
            if is_old && name.to_str().is_some_and(|name| name.starts_with(arriving::PREFIX)) {
                // Gone by itself meanwhile, or next time.
                let _ = fs::remove_file(entry.path());
            }
            let Some(digest) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            if is_old && let Some(partial) = self.bring(digest)? {
                partial.abandon();
            }
        }
        Ok(())
    }

    /// Notes that a blob is used now.
    ///
    /// # Errors
    /// When the note can't be written.
    pub fn touch(&self, digest: Digest, now: SystemTime) -> Result<(), BlobDirError> {
        let path = self.used_path(digest);
        // The blob's own times stay as they are: by them it is known to be unchanged.
        let note = || {
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            file.set_modified(now)
        };
        note().map_err(BlobDirError::io("write", &path))
    }

    /// All whole blobs, in no order.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub fn entries(&self) -> Result<Vec<BlobEntry>, BlobDirError> {
        let mut entries = Vec::new();
        let listing = fs::read_dir(&self.root).map_err(BlobDirError::io("list", &self.root))?;
        for entry in listing {
            let entry = entry.map_err(BlobDirError::io("list", &self.root))?;
            let Some(digest) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // Gone since it was listed: evicted by another process.
            let Ok(metadata) = entry.metadata() else { continue };
            let noted = fs::metadata(self.used_path(digest)).and_then(|note| note.modified());
            let used = noted.or_else(|_| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            entries.push(BlobEntry { digest, size: metadata.len(), used });
        }
        Ok(entries)
    }

    /// Removes a blob unless somebody holds it; whether it is gone.
    ///
    /// # Errors
    /// When it can't be removed.
    pub fn evict(&self, digest: Digest) -> Result<bool, BlobDirError> {
        let path = self.path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(BlobDirError::io("open", &path)(error)),
        };
        if file.try_lock().is_err() {
            return Ok(false);
        }
        fs::remove_file(&path).map_err(BlobDirError::io("remove", &path))?;
        let _ = fs::remove_file(self.used_path(digest));
        Ok(true)
    }

    /// Removes a blob that isn't what its name says. Who runs it goes on running it.
    ///
    /// # Errors
    /// When it can't be removed.
    pub fn discard(&self, digest: Digest) -> Result<(), BlobDirError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(BlobDirError::io("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    fn used_path(&self, digest: Digest) -> PathBuf {
        self.root.join(".used").join(digest.to_string())
    }
}

impl BlobSource for BlobDir {
    fn open_blob(&self, digest: Digest) -> io::Result<Option<Box<dyn io::Read + Send>>> {
        let held = self.hold(digest).map_err(io::Error::other)?;
        Ok(held.map(|file| Box::new(file) as Box<dyn io::Read + Send>))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn with_blob(content: &[u8]) -> (tempfile::TempDir, BlobDir, Digest) {
        let temp = tempfile::tempdir().unwrap();
        let blobs = BlobDir::open(temp.path().join("cache")).unwrap();
        let digest = Digest::of(content);
        let mut partial = blobs.bring(digest).unwrap().expect("nobody else is at it");
        partial.append(content).unwrap();
        partial.commit().unwrap();
        (temp, blobs, digest)
    }

    #[test]
    fn a_brought_blob_is_there_whole_and_executable() {
        let (_temp, blobs, digest) = with_blob(b"#!/bin/sh\n");
        let mut text = String::new();
        blobs.hold(digest).unwrap().expect("there").read_to_string(&mut text).unwrap();
        assert_eq!(text, "#!/bin/sh\n");
        assert_eq!(fs::metadata(blobs.path(digest)).unwrap().permissions().mode() & 0o777, 0o555);
        assert_eq!(blobs.entries().unwrap().len(), 1, "nothing else is taken for a blob");
        assert!(blobs.hold(Digest::of(b"other")).unwrap().is_none());
    }

    #[test]
    fn a_file_becomes_a_blob() {
        let (temp, blobs, _) = with_blob(b"x");
        let file = temp.path().join("file");
        fs::write(&file, "made").unwrap();
        blobs.take_in(&file, Digest::of(b"made")).unwrap();
        assert_eq!(blobs.read(Digest::of(b"made")).unwrap().unwrap(), b"made");
        assert!(!file.exists());
        assert!(blobs.take_in(&file, Digest::of(b"made")).is_err());
    }

    #[test]
    fn a_held_blob_is_not_evicted() {
        let (_temp, blobs, digest) = with_blob(b"x");
        let held = blobs.hold(digest).unwrap();
        assert!(!blobs.evict(digest).unwrap());
        drop(held);
        assert!(blobs.evict(digest).unwrap());
        assert!(blobs.hold(digest).unwrap().is_none());
    }

    #[test]
    fn a_blob_that_has_names_elsewhere_is_evicted_here() {
        let (temp, blobs, digest) = with_blob(b"x");
        let elsewhere = temp.path().join("elsewhere");
        fs::hard_link(blobs.path(digest), &elsewhere).unwrap();
        assert!(blobs.evict(digest).unwrap());
        assert!(blobs.hold(digest).unwrap().is_none());
        assert_eq!(fs::read(&elsewhere).unwrap(), b"x");
    }

    #[test]
    fn use_is_noted_beside_the_blob_and_leaves_its_times_alone() {
        let (_temp, blobs, digest) = with_blob(b"x");
        let before = fs::metadata(blobs.path(digest)).unwrap().modified().unwrap();
        let later = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
        blobs.touch(digest, later).unwrap();
        assert_eq!(blobs.entries().unwrap()[0].used, later);
        assert_eq!(fs::metadata(blobs.path(digest)).unwrap().modified().unwrap(), before);
    }

    #[test]
    fn other_bytes_get_no_name() {
        let temp = tempfile::tempdir().unwrap();
        let blobs = BlobDir::open(temp.path()).unwrap();
        let digest = Digest::of(b"right");
        let mut partial = blobs.bring(digest).unwrap().unwrap();
        partial.append(b"wrong").unwrap();
        let error = partial.commit().expect_err("another digest");
        assert!(
            matches!(error, BlobDirError::Mismatch { expected, found } if expected == digest && found == Digest::of(b"wrong"))
        );
        assert!(blobs.hold(digest).unwrap().is_none());
        assert_eq!(blobs.bring(digest).unwrap().unwrap().length(), 0, "and what was wrong isn't gone on with");
    }

    #[test]
    fn what_nobody_goes_on_with_is_forgotten() {
        let temp = tempfile::tempdir().unwrap();
        let blobs = BlobDir::open(temp.path()).unwrap();
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        for digest in [old, new] {
            blobs.bring(digest).unwrap().unwrap().append(b"part").unwrap();
        }
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let file = OpenOptions::new().write(true).open(temp.path().join(".partial").join(old.to_string())).unwrap();
        file.set_modified(long_ago).unwrap();
        blobs.forget_partials(Duration::from_secs(3_600)).unwrap();
        assert_eq!(blobs.bring(old).unwrap().unwrap().length(), 0);
        assert_eq!(blobs.bring(new).unwrap().unwrap().length(), 4);
    }

    #[test]
    fn what_a_dead_bringer_left_is_gone_on_with() {
        let temp = tempfile::tempdir().unwrap();
        let blobs = BlobDir::open(temp.path()).unwrap();
        let digest = Digest::of(b"one two");
        let mut first = blobs.bring(digest).unwrap().unwrap();
        first.append(b"one ").unwrap();
        first.set_validator("\"etag\"").unwrap();
        assert!(blobs.bring(digest).unwrap().is_none(), "one at a time");
        drop(first);
        assert!(blobs.hold(digest).unwrap().is_none(), "half a blob is none");
        let mut second = blobs.bring(digest).unwrap().unwrap();
        assert_eq!((second.length(), second.validator()), (4, Some("\"etag\"")));
        second.append(b"two").unwrap();
        second.commit().unwrap();
        assert!(blobs.hold(digest).unwrap().is_some());
    }
}
