//! What a tree is: a canonical list of names, kinds, modes, sizes and digests.
//!
//! Two directories with the same content have the same [`Manifest`], the same bytes of it, and so the same digest: entries
//! stand in one order, every number has one spelling, and which small files share a pack follows from their paths and
//! sizes alone ([`packing`]). The bytes are described in `docs/trees.md`, and read and written in [`encoding`].
//!
//! What may not: no file is opened here.

mod encoding;
pub(crate) mod packing;
mod part;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use executr_spec::Digest;
use thiserror::Error;

pub use packing::SMALL;

/// The most bytes of one name.
pub const MAX_NAME: usize = 255;
/// The most bytes of a path below the root, and of a link's target.
pub const MAX_PATH: usize = 4_095;
/// The most entries of a tree.
pub const MAX_ENTRIES: usize = 2_000_000;
/// The most bytes of a manifest.
pub const MAX_MANIFEST: usize = 256 << 20;

/// The bits of a mode that a tree keeps: reading, writing and executing. Set-user-id and its like are dropped.
pub const MODE_BITS: u32 = 0o777;

/// A tree: everything about it but the bytes of its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    entries: Vec<Entry>,
    packs: Vec<Digest>,
}

/// Something in a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands below the root; empty for a tree that is one file or one link.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory {
        /// Its permission bits.
        mode: u32,
    },
    /// A file.
    File(FileEntry),
    /// A symbolic link. It may point anywhere; nothing is ever written through it.
    Symlink {
        /// What it holds.
        target: PathBuf,
    },
}

/// A file in a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Its permission bits.
    pub mode: u32,
    /// Its length in bytes.
    pub size: u64,
    /// The SHA-256 of its bytes.
    pub digest: Digest,
    /// Where its bytes are.
    pub place: Place,
}

/// Where the bytes of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// There are none.
    Empty,
    /// They are a blob of their own, named by the file's digest.
    Own,
    /// They lie in a pack, together with other small files.
    Packed {
        /// Which of [`Manifest::packs`].
        pack: u32,
        /// From which byte of it on.
        offset: u32,
    },
}

/// Bytes within a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The blob.
    pub blob: Digest,
    /// The first byte.
    pub offset: u64,
    /// How many.
    pub length: u64,
}

/// Why something is no manifest.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ManifestError {
    /// It doesn't begin as one.
    #[error("this is not a manifest of a tree, or one of a later version; update this program")]
    Foreign,
    /// It ends in the middle, or goes on after its end.
    #[error("the manifest is cut off or has bytes after its end; fetch it again")]
    Cut,
    /// It isn't written in the one way it can be.
    #[error("the manifest is not canonical at `{}`: {what}; make it again", path.display())]
    Odd {
        /// Near which path.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// It is larger than allowed.
    #[error("the tree has more than {most} {what}; leave something out")]
    TooLarge {
        /// The limit.
        most: u64,
        /// Of what.
        what: &'static str,
    },
}

impl Manifest {
    /// Makes a manifest of entries in any order: they are sorted, and each file is told its place. `packs` are the digests
    /// of the packs that [`packing`] says there are, in order.
    ///
    /// # Errors
    /// [`ManifestError`] when a path is no path below the root, stands there twice or below something that is no
    /// directory of the tree, or when there are too many or another number of packs.
    pub fn new(mut entries: Vec<Entry>, packs: Vec<Digest>) -> Result<Self, ManifestError> {
        entries.sort_by(|one, other| one.path.components().cmp(other.path.components()));
        let mut manifest = Self { entries, packs };
        manifest.check()?;
        manifest.settle()?;
        Ok(manifest)
    }

    /// Makes a manifest of entries that a walk found, in order, on a filesystem, where names can't be wrong; their files were
    /// told their places by a [`packing::Packer`].
    #[cfg(feature = "snapshot")]
    pub(crate) fn of_settled(entries: Vec<Entry>, packs: Vec<Digest>) -> Result<Self, ManifestError> {
        let manifest = Self { entries, packs };
        if manifest.entries.iter().any(|entry| entry.path.as_os_str().len() > MAX_PATH) {
            manifest.check()?;
        }
        Ok(manifest)
    }

    /// The same tree with the digests of its files and packs, in order.
    #[cfg(feature = "stream")]
    pub(crate) fn with_digests(mut self, files: Vec<Digest>, packs: Vec<Digest>) -> Self {
        let mut files = files.into_iter();
        for entry in &mut self.entries {
            if let Kind::File(file) = &mut entry.kind
                && let Some(digest) = files.next()
            {
                file.digest = digest;
            }
        }
        Self { packs, ..self }
    }

    /// What is known of a tree whose files nobody has read: digests are zeros, and so are those of the packs. Entries in
    /// order.
    #[cfg(feature = "stream")]
    pub(crate) fn outline(entries: Vec<Entry>) -> Result<Self, ManifestError> {
        let packs = nameless_packs(&entries);
        Self::new(entries, packs)
    }

    /// What names a tree among who needs no packs: the SHA-256 of the bytes that go over to them.
    #[cfg(feature = "stream")]
    #[must_use]
    pub fn outline_digest(&self) -> Digest {
        Digest::of(&self.encode_outline())
    }

    /// The bytes of a manifest with the same entries whose packs have zeros for digests: for who needs no packs. A
    /// [`part`](Self::part) has bytes of this kind only.
    #[cfg(feature = "stream")]
    pub(crate) fn encode_outline(&self) -> Vec<u8> {
        encoding::encode_with(self, &nameless_packs(&self.entries))
    }

    /// The tree that is the one entry of this one.
    #[cfg(feature = "snapshot")]
    pub(crate) fn without_name(self) -> Result<Self, ManifestError> {
        let entries = self.entries.into_iter().map(|entry| Entry { path: PathBuf::new(), ..entry }).collect();
        Self::new(entries, self.packs)
    }

    /// Reads a manifest from bytes that anybody may have made.
    ///
    /// # Errors
    /// [`ManifestError`] when they are not exactly what [`encode`](Self::encode) writes.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        encoding::parse(bytes)
    }

    /// The bytes of the manifest, the same for equal trees.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encoding::encode(self)
    }

    /// The tree's digest: the SHA-256 of the manifest's bytes, under which the manifest is a blob.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.encode())
    }

    /// All entries: a directory before what is in it, names in a directory in the order of their bytes.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The packs, in the order of the files in them.
    #[must_use]
    pub fn packs(&self) -> &[Digest] {
        &self.packs
    }

    /// Every blob that holds bytes of the tree's files, each once. The manifest itself is one more, named by the tree's
    /// digest.
    #[must_use]
    pub fn blobs(&self) -> Vec<Digest> {
        let own = self.files().filter(|(_, file)| file.place == Place::Own).map(|(_, file)| file.digest);
        self.packs.iter().copied().chain(own).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The files with their paths.
    pub fn files(&self) -> impl Iterator<Item = (&Path, &FileEntry)> {
        self.entries.iter().filter_map(|entry| match &entry.kind {
            Kind::File(file) => Some((entry.path.as_path(), file)),
            Kind::Directory { .. } | Kind::Symlink { .. } => None,
        })
    }

    /// The bytes of all files together.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.files().fold(0, |sum, (_, file)| sum.saturating_add(file.size))
    }

    /// Whether the tree is one file or one link rather than a directory.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.entries.first().is_some_and(|entry| entry.path.as_os_str().is_empty())
    }

    /// Where the bytes of a file of this tree are; `None` when it is empty.
    #[must_use]
    pub fn extent(&self, file: &FileEntry) -> Option<Extent> {
        match file.place {
            Place::Empty => None,
            Place::Own => Some(Extent { blob: file.digest, offset: 0, length: file.size }),
            Place::Packed { pack, offset } => {
                let blob = *self.packs.get(pack as usize)?;
                Some(Extent { blob, offset: u64::from(offset), length: file.size })
            }
        }
    }

    /// The entry at a path.
    #[must_use]
    pub fn get(&self, path: &Path) -> Option<&Entry> {
        let found = self.entries.binary_search_by(|entry| entry.path.components().cmp(path.components()));
        found.ok().and_then(|index| self.entries.get(index))
    }

    /// Looks whether sorted entries make a tree.
    fn check(&self) -> Result<(), ManifestError> {
        if self.entries.len() > MAX_ENTRIES {
            return Err(ManifestError::TooLarge { most: MAX_ENTRIES as u64, what: "entries" });
        }
        if self.is_single() {
            let alone = self.entries.len() == 1 && !matches!(self.entries[0].kind, Kind::Directory { .. });
            check_kind(&self.entries[0])?;
            return if alone { Ok(()) } else { Err(odd(Path::new(""), "a root that is no directory holds something")) };
        }
        let mut above: Vec<&Path> = vec![Path::new("")];
        let mut last: Option<&Path> = None;
        for entry in &self.entries {
            let path = entry.path.as_path();
            check_path(path)?;
            check_kind(entry)?;
            if last == Some(path) {
                return Err(odd(path, "it stands there twice"));
            }
            let parent = path.parent().unwrap_or(Path::new(""));
            while above.last().is_some_and(|above| *above != parent) {
                above.pop();
            }
            if above.is_empty() {
                return Err(odd(path, "what it stands in is no directory of the tree"));
            }
            if matches!(entry.kind, Kind::Directory { .. }) {
                above.push(path);
            }
            last = Some(path);
        }
        Ok(())
    }

    /// Tells each file its place.
    fn settle(&mut self) -> Result<(), ManifestError> {
        let mut packer = packing::Packer::default();
        for entry in &mut self.entries {
            if let Kind::File(file) = &mut entry.kind {
                file.place = packer.place(&entry.path, file.size);
            }
        }
        if packer.packs() != self.packs.len() {
            return Err(odd(Path::new(""), "it names another number of packs than its small files make"));
        }
        Ok(())
    }
}

/// As many packs as the small files of entries in order make.
#[cfg(feature = "stream")]
fn nameless_packs(entries: &[Entry]) -> Vec<Digest> {
    let mut packer = packing::Packer::default();
    for entry in entries {
        if let Kind::File(file) = &entry.kind {
            packer.place(&entry.path, file.size);
        }
    }
    vec![Digest([0; 32]); packer.packs()]
}

fn odd(path: &Path, what: &'static str) -> ManifestError {
    ManifestError::Odd { path: path.to_owned(), what }
}

/// Whether a name can stand in a directory.
fn is_name(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= MAX_NAME
        && !matches!(bytes, b"." | b"..")
        && !bytes.iter().any(|byte| matches!(byte, 0 | b'/'))
}

fn check_path(path: &Path) -> Result<(), ManifestError> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() > MAX_PATH {
        return Err(odd(path, "its path is longer than a path may be"));
    }
    if !bytes.split(|byte| *byte == b'/').all(|name| is_name(OsStr::from_bytes(name))) {
        return Err(odd(path, "it has a name that can't stand in a directory"));
    }
    Ok(())
}

fn check_kind(entry: &Entry) -> Result<(), ManifestError> {
    let mode = match &entry.kind {
        Kind::Directory { mode } => *mode,
        Kind::File(file) => file.mode,
        Kind::Symlink { target } => {
            let bytes = target.as_os_str().as_bytes();
            if bytes.is_empty() || bytes.len() > MAX_PATH || bytes.contains(&0) {
                return Err(odd(&entry.path, "its link's target can't be one"));
            }
            return Ok(());
        }
    };
    if mode & !MODE_BITS != 0 {
        return Err(odd(&entry.path, "its mode has other bits than permissions"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
