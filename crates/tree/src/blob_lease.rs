//! Keeping many blobs from being evicted, without a descriptor for each.
//!
//! A lease is a file that names them, locked while its holder lives. Who evicts holds [`gate`] alone, reads the leases and
//! passes over what they name; who takes a lease holds it with others, so that what is there once the lease is, stays.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use executr_spec::Digest;

/// Blobs that nobody evicts while this lives, those that aren't there yet too.
#[derive(Debug)]
pub struct BlobLease {
    path: PathBuf,
    /// Locked.
    _file: File,
}

static NEXT: AtomicU64 = AtomicU64::new(0);

impl BlobLease {
    pub(crate) fn take(leases: &Path, digests: &[Digest]) -> io::Result<Self> {
        let _gate = gate(leases)?.shared()?;
        let (path, mut file) = loop {
            let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = leases.join(name);
            // A process of the same number may have left one, or have one in another container.
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => break (path, file),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        };
        file.try_lock()?;
        let mut bytes = Vec::with_capacity(digests.len() * 32);
        for digest in digests {
            bytes.extend_from_slice(&digest.0);
        }
        file.write_all(&bytes)?;
        Ok(Self { path, _file: file })
    }
}

impl Drop for BlobLease {
    fn drop(&mut self) {
        // One that stays is not locked, so it keeps nothing, and is removed by the next who evicts.
        let _ = fs::remove_file(&self.path);
    }
}

/// What leases are taken and blobs are evicted through.
#[derive(Debug)]
pub(crate) struct Gate(File);

pub(crate) fn gate(leases: &Path) -> io::Result<Gate> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).open(leases.join("gate")).map(Gate)
}

impl Gate {
    fn shared(self) -> io::Result<Self> {
        self.0.lock_shared()?;
        Ok(self)
    }

    /// For who evicts.
    pub(crate) fn alone(self) -> io::Result<Self> {
        self.0.lock()?;
        Ok(self)
    }

    /// What living leases name. Those of the dead are removed.
    pub(crate) fn leased(&self, leases: &Path) -> io::Result<HashSet<Digest>> {
        let mut leased = HashSet::new();
        for entry in fs::read_dir(leases)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name == "gate") {
                continue;
            }
            let Ok(file) = File::open(&path) else { continue };
            if file.try_lock().is_ok() {
                fs::remove_file(&path)?;
                continue;
            }
            let bytes = fs::read(&path).unwrap_or_default();
            leased.extend(bytes.as_chunks().0.iter().map(|digest| Digest(*digest)));
        }
        Ok(leased)
    }
}
