//! The bytes of a manifest.
//!
//! Directories nest, so a path is made of names that were checked one by one, and nothing can be written that stands
//! outside the root, twice, or below a file. Numbers are LEB128 without needless bytes.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use executr_spec::Digest;

use super::{
    Entry, FileEntry, Kind, MAX_ENTRIES, MAX_MANIFEST, MAX_PATH, MODE_BITS, Manifest, ManifestError, Place, check_kind,
    is_name, odd,
};

const MAGIC: &[u8] = b"executr tree 1\n";

const END: u8 = 0;
const DIRECTORY: u8 = 1;
const FILE: u8 = 2;
const SYMLINK: u8 = 3;

pub(super) fn encode(manifest: &Manifest) -> Vec<u8> {
    encode_with(manifest, &manifest.packs)
}

/// As [`encode`], with other packs.
pub(super) fn encode_with(manifest: &Manifest, packs: &[Digest]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + manifest.entries.len() * 64 + packs.len() * 32);
    out.extend_from_slice(MAGIC);
    if manifest.is_single() {
        for entry in &manifest.entries {
            kind(&mut out, entry, None);
        }
    } else {
        out.push(DIRECTORY);
        let mut depth = 0_usize;
        for entry in &manifest.entries {
            let names = entry.path.as_os_str().as_bytes();
            let below = names.iter().filter(|byte| **byte == b'/').count();
            out.extend(std::iter::repeat_n(END, depth.saturating_sub(below)));
            depth = below + usize::from(matches!(entry.kind, Kind::Directory { .. }));
            let name = names.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            kind(&mut out, entry, Some(name));
        }
        out.extend(std::iter::repeat_n(END, depth + 1));
    }
    number(&mut out, packs.len() as u64);
    for pack in packs {
        out.extend_from_slice(&pack.0);
    }
    out
}

/// One entry; the root has no name.
fn kind(out: &mut Vec<u8>, entry: &Entry, name: Option<&[u8]>) {
    let named = |out: &mut Vec<u8>, kind| {
        out.push(kind);
        if let Some(name) = name {
            text(out, name);
        }
    };
    match &entry.kind {
        Kind::Directory { mode } => {
            named(out, DIRECTORY);
            number(out, u64::from(*mode));
        }
        Kind::File(file) => {
            named(out, FILE);
            number(out, u64::from(file.mode));
            number(out, file.size);
            out.extend_from_slice(&file.digest.0);
        }
        Kind::Symlink { target } => {
            named(out, SYMLINK);
            text(out, target.as_os_str().as_bytes());
        }
    }
}

fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn parse(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    if bytes.len() > MAX_MANIFEST {
        return Err(ManifestError::TooLarge { most: MAX_MANIFEST as u64, what: "bytes of manifest" });
    }
    let rest = bytes.strip_prefix(MAGIC).ok_or(ManifestError::Foreign)?;
    let mut reader = Reader { rest, path: Vec::new() };
    let mut entries = Vec::new();
    match reader.byte()? {
        DIRECTORY => reader.directory(&mut entries)?,
        single => entries.push(reader.entry(single)?),
    }
    let count = reader.number()?;
    if count > (reader.rest.len() / 32) as u64 {
        return Err(ManifestError::Cut);
    }
    let packs = (0..count).map(|_| reader.digest()).collect::<Result<Vec<_>, _>>()?;
    if !reader.rest.is_empty() {
        return Err(ManifestError::Cut);
    }
    let mut manifest = Manifest { entries, packs };
    manifest.settle()?;
    Ok(manifest)
}

struct Reader<'a> {
    rest: &'a [u8],
    /// Where we are.
    path: Vec<u8>,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], ManifestError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(ManifestError::Cut)?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, ManifestError> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn number(&mut self) -> Result<u64, ManifestError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return if byte == 0 && shift > 0 {
                    Err(self.odd("a number is longer than it needs to be"))
                } else {
                    Ok(value)
                };
            }
        }
        Err(self.odd("a number is too large"))
    }

    fn text(&mut self, most: usize) -> Result<&'a [u8], ManifestError> {
        let length = self.number()?;
        if length > most as u64 {
            return Err(self.odd("a name or a link's target is too long"));
        }
        self.take(length as usize)
    }

    fn digest(&mut self) -> Result<Digest, ManifestError> {
        let mut digest = Digest([0; 32]);
        digest.0.copy_from_slice(self.take(32)?);
        Ok(digest)
    }

    fn mode(&mut self) -> Result<u32, ManifestError> {
        match u32::try_from(self.number()?) {
            Ok(mode) if mode & !MODE_BITS == 0 => Ok(mode),
            _ => Err(self.odd("its mode has other bits than permissions")),
        }
    }

    /// What is in the root, and in all directories below it: by hand rather than by calling itself, so that no manifest
    /// is too deep.
    fn directory(&mut self, entries: &mut Vec<Entry>) -> Result<(), ManifestError> {
        // Of each open directory how long its path is, and the last name in it.
        let mut open: Vec<(usize, &'a [u8])> = vec![(0, b"")];
        while let Some((length, last)) = open.pop() {
            self.path.truncate(length);
            let kind = self.byte()?;
            if kind == END {
                continue;
            }
            let name = self.text(super::MAX_NAME)?;
            if !is_name(OsStr::from_bytes(name)) {
                return Err(self.odd("a name in it can't stand in a directory"));
            }
            if name <= last {
                return Err(self.odd("the names in it are not in order"));
            }
            if length > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name);
            if self.path.len() > MAX_PATH {
                return Err(self.odd("its path is longer than a path may be"));
            }
            if entries.len() == MAX_ENTRIES {
                return Err(ManifestError::TooLarge { most: MAX_ENTRIES as u64, what: "entries" });
            }
            open.push((length, name));
            if kind == DIRECTORY {
                let mode = self.mode()?;
                entries.push(Entry { path: self.here(), kind: Kind::Directory { mode } });
                open.push((self.path.len(), b""));
            } else {
                entries.push(self.entry(kind)?);
            }
        }
        Ok(())
    }

    /// A file or a link, after its name.
    fn entry(&mut self, kind: u8) -> Result<Entry, ManifestError> {
        let kind = match kind {
            FILE => {
                let (mode, size, digest) = (self.mode()?, self.number()?, self.digest()?);
                Kind::File(FileEntry { mode, size, digest, place: Place::Empty })
            }
            SYMLINK => Kind::Symlink { target: OsStr::from_bytes(self.text(MAX_PATH)?).into() },
            _ => return Err(self.odd("it is of a kind that this version doesn't know")),
        };
        let entry = Entry { path: self.here(), kind };
        check_kind(&entry)?;
        Ok(entry)
    }

    fn here(&self) -> PathBuf {
        std::ffi::OsString::from_vec(self.path.clone()).into()
    }

    fn odd(&self, what: &'static str) -> ManifestError {
        odd(Path::new(OsStr::from_bytes(&self.path)), what)
    }
}
