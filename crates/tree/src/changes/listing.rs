//! The names in one directory, in order.
//!
//! Read in large pieces into memory that one thread uses again for every directory: a walk over many files allocates
//! nothing for each.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::RawDir;

/// So many bytes of names are asked of the kernel at a time.
const PIECE: usize = 64 << 10;

/// The names of a directory that was read last.
#[derive(Default)]
pub(super) struct Listing {
    piece: Vec<u8>,
    bytes: Vec<u8>,
    /// Where in `bytes` each name begins, and how long it is.
    names: Vec<(u32, u8)>,
}

impl Listing {
    /// Reads the names in a directory, but for its own two.
    pub(super) fn read(&mut self, directory: impl AsFd) -> rustix::io::Result<()> {
        self.bytes.clear();
        self.names.clear();
        self.piece.reserve(PIECE);
        let mut entries = RawDir::new(directory, self.piece.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            // No name is longer than 255 bytes.
            let (Ok(start), Ok(length)) = (u32::try_from(self.bytes.len()), u8::try_from(name.len())) else {
                return Err(rustix::io::Errno::NAMETOOLONG);
            };
            if !matches!(name, b"." | b"..") {
                self.names.push((start, length));
                self.bytes.extend_from_slice(name);
            }
        }
        let bytes = &self.bytes;
        self.names.sort_unstable_by(|one, other| slice(bytes, *one).cmp(slice(bytes, *other)));
        Ok(())
    }

    /// The names in the order of their bytes.
    pub(super) fn names(&self) -> impl Iterator<Item = &OsStr> {
        self.names.iter().map(|place| OsStr::from_bytes(slice(&self.bytes, *place)))
    }
}

fn slice(bytes: &[u8], (start, length): (u32, u8)) -> &[u8] {
    &bytes[start as usize..][..usize::from(length)]
}
