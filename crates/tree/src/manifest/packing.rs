//! Which small files share a blob.
//!
//! The rule is part of the format: it looks at paths and sizes only, in the order of the entries, so equal trees are packed
//! alike, and a changed file changes the pack it is in and, unless packs run full, no other.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::Place;

/// A file of so many bytes or more is a blob of its own.
pub const SMALL: u64 = 64 << 10;
/// A pack isn't ended by a path before it has so many bytes.
const LEAST: u32 = 256 << 10;
/// No pack is larger.
pub(crate) const MOST: u32 = 4 << 20;
/// One path in so many ends a pack that has enough.
const ENDS: u64 = 64;

/// Gives files their places; to be asked about every file of a tree, in order.
#[derive(Debug, Default)]
pub(crate) struct Packer {
    /// Packs that are full.
    full: u32,
    /// Bytes in the one that isn't.
    length: u32,
}

impl Packer {
    /// The place of the next file.
    pub(crate) fn place(&mut self, path: &Path, size: u64) -> Place {
        let size = match u32::try_from(size) {
            Ok(0) => return Place::Empty,
            Ok(size) if u64::from(size) < SMALL => size,
            _ => return Place::Own,
        };
        if self.length + size > MOST {
            self.end();
        }
        let place = Place::Packed { pack: self.full, offset: self.length };
        self.length += size;
        if self.length >= LEAST && fnv(path.as_os_str().as_bytes()).is_multiple_of(ENDS) {
            self.end();
        }
        place
    }

    /// How many packs there are by now.
    pub(crate) fn packs(&self) -> usize {
        self.full as usize + usize::from(self.length > 0)
    }

    fn end(&mut self) {
        self.full += 1;
        self.length = 0;
    }
}

/// FNV-1a of 64 bits (draft-eastlake-fnv, section 6), folded to 32 because its lowest bits see little of the input.
fn fnv(bytes: &[u8]) -> u64 {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    (hash >> 32) ^ (hash & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(files: &[(String, u64)]) -> Vec<Place> {
        let mut packer = Packer::default();
        files.iter().map(|(path, size)| packer.place(Path::new(path), *size)).collect()
    }

    fn pack_of(place: Place) -> u32 {
        match place {
            Place::Packed { pack, .. } => pack,
            other => panic!("{other:?} is in no pack"),
        }
    }

    #[test]
    fn large_files_stand_alone_and_empty_ones_nowhere() {
        let files = [("a", 0), ("b", SMALL - 1), ("c", SMALL), ("d", 5)].map(|(path, size)| (path.to_owned(), size));
        let packed = |offset| Place::Packed { pack: 0, offset };
        assert_eq!(places(&files), [Place::Empty, packed(0), Place::Own, packed(SMALL as u32 - 1)]);
    }

    #[test]
    fn packs_are_neither_tiny_nor_huge() {
        let files: Vec<_> = (0..20_000).map(|n| (format!("d{}/f{n}", n / 100), 5_000)).collect();
        let placed = places(&files);
        let mut sizes = std::collections::BTreeMap::<u32, u32>::new();
        for place in &placed {
            *sizes.entry(pack_of(*place)).or_default() += 5_000;
        }
        let last = *sizes.keys().last().unwrap();
        assert!(sizes.iter().all(|(pack, size)| (*size >= LEAST || *pack == last) && *size <= MOST), "{sizes:?}");
        assert!((100..400).contains(&sizes.len()), "{} packs of 100 MB", sizes.len());
    }

    #[test]
    fn a_file_that_grows_or_goes_moves_no_far_ones() {
        let files: Vec<_> = (0..5_000).map(|n| (format!("d{}/f{n}", n / 100), 3_000 + n % 700)).collect();
        let before = places(&files);
        let mut grown = files.clone();
        grown[50].1 += 40;
        let after = places(&grown);
        // Offsets within the packs of all others are what they were.
        let moved = (0..files.len()).filter(|n| before[*n] != after[*n]).count();
        assert!(moved < 600, "{moved} of 5,000 moved");
    }
}
