//! A file without a name that holds segments of output.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

/// Bytes of a slot: the largest segment fits.
pub(super) const SLOT: usize = super::log::SEGMENT + super::log::PIECE + 64;

/// Segments on disk. The file has no name: it is gone with the process, however that ends.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    free: Vec<u64>,
    slots: u64,
}

/// Tells spool files of this process apart in the moment they have a name.
static NEXT: AtomicU64 = AtomicU64::new(0);

impl Spool {
    pub(super) fn create(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!(".output-{}-{number}", std::process::id()));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        fs::remove_file(&path)?;
        Ok(Self { file, free: Vec::new(), slots: 0 })
    }

    /// Writes a segment, at most [`SLOT`] bytes; says where.
    pub(super) fn put(&mut self, bytes: &[u8]) -> io::Result<u64> {
        debug_assert!(bytes.len() <= SLOT, "{} bytes in a slot of {SLOT}", bytes.len());
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        });
        match self.file.write_all_at(bytes, slot * SLOT as u64) {
            Ok(()) => Ok(slot),
            Err(error) => {
                self.free.push(slot);
                Err(error)
            }
        }
    }

    pub(super) fn read(&self, slot: u64, length: usize) -> io::Result<Bytes> {
        read_at(&self.file, slot * SLOT as u64, length)
    }

    /// Gives a slot back. When none is taken the file gives its space back, too.
    pub(super) fn free(&mut self, slot: u64) {
        self.free.push(slot);
        if self.free.len() as u64 == self.slots && self.file.set_len(0).is_ok() {
            self.free.clear();
            self.slots = 0;
        }
    }
}

/// Reads `length` bytes at `position`.
pub(super) fn read_at(file: &File, position: u64, length: usize) -> io::Result<Bytes> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, position)?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_used_again_and_leave_no_name() {
        let temp = tempfile::tempdir().unwrap();
        let mut spool = Spool::create(temp.path()).unwrap();
        let (a, b) = (spool.put(b"first").unwrap(), spool.put(b"second").unwrap());
        spool.free(a);
        let c = spool.put(b"third").unwrap();
        assert_eq!(
            (c, &spool.read(b, 6).unwrap()[..], &spool.read(c, 5).unwrap()[..]),
            (a, &b"second"[..], &b"third"[..])
        );
        spool.free(b);
        spool.free(c);
        assert_eq!(spool.file.metadata().unwrap().len(), 0);
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }
}
