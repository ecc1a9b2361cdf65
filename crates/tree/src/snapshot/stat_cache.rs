//! What is known of files from the last snapshot: a file that looks as it did is not read again.
//!
//! Like git's index it doesn't believe a file that was changed about when it was read: within one tick of the clock it may
//! have been changed again and look the same. Such files are not noted.
//!
//! The file is a cache: one that can't be read, or isn't what it should be, is as good as none.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use executr_spec::Digest;

use crate::stamp::Stamp;

const MAGIC: &[u8] = b"executr stat cache 2\n";
/// Digests by path and by pack.
#[derive(Debug, Default)]
pub(super) struct StatCache {
    /// The file as it was read.
    bytes: Vec<u8>,
    /// Where in it files are noted, in the order of a manifest.
    files: Vec<Noted>,
    /// What was learned since.
    learned: HashMap<Box<[u8]>, (Stamp, Digest)>,
    packs: HashMap<Digest, Digest>,
}

/// Where a file's path, stamp and digest stand.
#[derive(Clone, Copy, Debug)]
struct Noted {
    path: usize,
    length: usize,
}

/// How far a reader is that asks about files in the order of a manifest.
#[derive(Debug, Default)]
pub(super) struct Cursor(usize);

/// What a snapshot found out, to be written.
#[derive(Debug, Default)]
pub(super) struct Notes {
    bytes: Vec<u8>,
}

impl StatCache {
    /// Reads the file at `path`.
    pub(super) fn read(path: &Path) -> Self {
        fs::read(path).ok().and_then(parse).unwrap_or_default()
    }

    /// The digest of a file that looks so. Files that are asked about in the order of a manifest are found at once, others
    /// not at all.
    pub(super) fn file(&self, path: &Path, stamp: &Stamp, cursor: &mut Cursor) -> Option<Digest> {
        let path = path.as_os_str().as_bytes();
        if !self.learned.is_empty()
            && let Some((known, digest)) = self.learned.get(path)
        {
            return (known == stamp).then_some(*digest);
        }
        while let Some(Noted { path: start, length }) = self.files.get(cursor.0) {
            let noted = &self.bytes[*start..start + length];
            match in_order(noted, path) {
                Ordering::Less => cursor.0 += 1,
                Ordering::Greater => return None,
                Ordering::Equal => {
                    cursor.0 += 1;
                    let mut rest = &self.bytes[start + length..];
                    return (read_stamp(&mut rest)? == *stamp).then_some(Digest(take(&mut rest)?));
                }
            }
        }
        None
    }

    /// Remembers a file for as long as this lives.
    pub(super) fn learn(&mut self, path: &Path, stamp: Stamp, digest: Digest) {
        self.learned.insert(path.as_os_str().as_bytes().into(), (stamp, digest));
    }

    /// The digest of the pack of files with these digests.
    pub(super) fn pack(&self, files: Digest) -> Option<Digest> {
        self.packs.get(&files).copied()
    }
}

impl Notes {
    /// Notes a file that was read, or known, when the clock said `looked` (nanoseconds since 1970).
    pub(super) fn file(&mut self, path: &Path, stamp: &Stamp, digest: Digest, looked: i64) {
        if !stamp.had_rested(looked) {
            return;
        }
        let path = path.as_os_str().as_bytes();
        let Ok(length) = u16::try_from(path.len()) else { return };
        self.bytes.push(b'f');
        self.bytes.extend(length.to_le_bytes());
        self.bytes.extend(path);
        self.bytes.extend(stamp.ctime.to_le_bytes());
        self.bytes.extend(stamp.mtime.to_le_bytes());
        self.bytes.extend(stamp.size.to_le_bytes());
        self.bytes.extend(stamp.inode.to_le_bytes());
        self.bytes.extend(stamp.mode.to_le_bytes());
        self.bytes.extend(digest.0);
    }

    /// Notes a pack of files with these digests.
    pub(super) fn pack(&mut self, files: Digest, digest: Digest) {
        self.bytes.push(b'p');
        self.bytes.extend(files.0);
        self.bytes.extend(digest.0);
    }

    /// Puts the notes in the place of those at `path`. What can't be written is read again the next time.
    pub(super) fn write(self, path: &Path) {
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let write = || {
            let mut file = fs::File::create(&temporary)?;
            file.write_all(MAGIC)?;
            file.write_all(&self.bytes)?;
            file.write_all(&check(&self.bytes).to_le_bytes())?;
            drop(file);
            fs::rename(&temporary, path)
        };
        if write().is_err() {
            let _ = fs::remove_file(&temporary);
        }
    }
}

fn parse(bytes: Vec<u8>) -> Option<StatCache> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (mut rest, sum) = rest.split_last_chunk()?;
    if check(rest) != u64::from_le_bytes(*sum) {
        return None;
    }
    let mut files = Vec::with_capacity(rest.len() / 128);
    let mut packs = HashMap::new();
    let end = bytes.len() - sum.len();
    while let Some((kind, after)) = rest.split_first() {
        rest = after;
        if *kind == b'p' {
            let files = take(&mut rest)?;
            packs.insert(Digest(files), Digest(take(&mut rest)?));
            continue;
        }
        let length = usize::from(u16::from_le_bytes(take(&mut rest)?));
        files.push(Noted { path: end - rest.len(), length });
        rest = rest.get(length + NOTED..)?;
    }
    Some(StatCache { bytes, files, learned: HashMap::new(), packs })
}

/// Bytes of a stamp and a digest.
const NOTED: usize = 4 * 8 + 4 + 32;

fn read_stamp(rest: &mut &[u8]) -> Option<Stamp> {
    Some(Stamp {
        ctime: i64::from_le_bytes(take(rest)?),
        mtime: i64::from_le_bytes(take(rest)?),
        size: u64::from_le_bytes(take(rest)?),
        inode: u64::from_le_bytes(take(rest)?),
        mode: u32::from_le_bytes(take(rest)?),
    })
}

/// The order of a manifest: by names, so that what is in a directory comes before whatever else begins with its name.
fn in_order(one: &[u8], other: &[u8]) -> Ordering {
    let common = one.iter().zip(other).position(|(one, other)| one != other);
    let next = |path: &[u8]| common.and_then(|at| path.get(at).map(|byte| if *byte == b'/' { 0 } else { *byte }));
    match common {
        Some(_) => next(one).cmp(&next(other)),
        None => one.len().cmp(&other.len()),
    }
}

/// A sum by which a file that a crash left half written is found out. It is no protection against whoever may write it.
fn check(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks();
    let add = |sum: u64, word: u64| (sum.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let sum = words.iter().fold(bytes.len() as u64, |sum, word| add(sum, u64::from_le_bytes(*word)));
    rest.iter().fold(sum, |sum, byte| add(sum, u64::from(*byte)))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::{REST, SECOND};

    fn stamp(changed: i64) -> Stamp {
        Stamp { ctime: changed, mtime: changed, size: 5, inode: 7, mode: 0o100_644 }
    }

    #[test]
    fn what_was_noted_is_known_while_it_looks_the_same() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("cache");
        let (at, file, pack) = (50 * SECOND + 1, Digest::of(b"file"), Digest::of(b"pack"));
        let mut notes = Notes::default();
        notes.file(Path::new("a/b"), &stamp(at), file, at + REST);
        notes.pack(file, pack);
        notes.write(&path);
        let cache = StatCache::read(&path);
        assert_eq!(cache.file(Path::new("a/b"), &stamp(at), &mut Cursor::default()), Some(file));
        assert_eq!(cache.file(Path::new("a/b"), &stamp(at + 1), &mut Cursor::default()), None);
        assert_eq!(cache.file(Path::new("a/b"), &Stamp { inode: 8, ..stamp(at) }, &mut Cursor::default()), None);
        assert_eq!((cache.pack(file), cache.pack(pack)), (Some(pack), None));
        let mut bytes = fs::read(&path).unwrap();
        bytes[40] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(StatCache::read(&path).pack(file), None, "a damaged cache is none");
    }

    #[test]
    fn files_are_found_in_the_order_of_a_manifest() {
        let paths = ["a", "a/b", "a/c/d", "a.txt", "a0", "b"].map(Path::new);
        let temp = tempfile::tempdir().unwrap();
        let at = 50 * SECOND + 1;
        let mut notes = Notes::default();
        for path in &paths {
            notes.file(path, &stamp(at), Digest::of(path.as_os_str().as_bytes()), at + REST);
        }
        notes.write(&temp.path().join("cache"));
        let cache = StatCache::read(&temp.path().join("cache"));
        for skipped in 0..64_u32 {
            let mut cursor = Cursor::default();
            for (number, path) in paths.iter().enumerate().filter(|(number, _)| skipped >> number & 1 == 0) {
                // What comes right after it.
                let new = path.join("\u{1}");
                assert!(cache.file(path, &stamp(at), &mut cursor).is_some(), "{path:?} of {skipped:b} {number}");
                assert_eq!(cache.file(&new, &stamp(at), &mut cursor), None);
            }
        }
    }

    #[test]
    fn what_changed_about_when_it_was_read_is_not_believed() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("cache");
        let at = 50 * SECOND + 1;
        let mut notes = Notes::default();
        notes.file(Path::new("fresh"), &stamp(at), Digest::of(b"x"), at + REST - 1);
        notes.file(Path::new("coarse"), &stamp(50 * SECOND), Digest::of(b"x"), 52 * SECOND);
        notes.write(&path);
        let cache = StatCache::read(&path);
        assert_eq!(cache.file(Path::new("fresh"), &stamp(at), &mut Cursor::default()), None);
        assert_eq!(cache.file(Path::new("coarse"), &stamp(50 * SECOND), &mut Cursor::default()), None);
    }
}
