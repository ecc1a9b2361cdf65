//! The blobs of a snapshot, read from the files it was made of.

use std::collections::HashMap;
use std::io::{self, Cursor, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use executr_spec::Digest;

use super::walk::{Found, FoundKind};
use super::{Root, Snapshot};
use crate::beneath;
use crate::manifest::{Entry, Kind, Place};
use crate::source::{BlobSource, OfferedBlob};

/// A blob that is nowhere yet but in the files it is made of.
#[derive(Clone, Debug)]
pub struct LooseBlob {
    digest: Digest,
    root: Arc<Root>,
    /// The files, below the root, and their lengths.
    files: Vec<(PathBuf, u64)>,
}

impl LooseBlob {
    pub(super) fn new<'a>(digest: Digest, root: &Arc<Root>, files: impl Iterator<Item = &'a Found>) -> Self {
        let files = files.filter_map(|found| match &found.kind {
            FoundKind::File(stamp) => Some((found.path.clone(), stamp.size)),
            FoundKind::Directory { .. } | FoundKind::Symlink(_) => None,
        });
        Self { digest, root: Arc::clone(root), files: files.collect() }
    }

    /// Its name.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Its length in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.files.iter().map(|(_, size)| size).sum()
    }

    /// Reads it. A file that isn't as long any more is an error that names it; one that has other bytes is found out by
    /// whoever verifies what it reads.
    #[must_use]
    pub fn open(&self) -> impl Read + Send + use<> {
        let mut files = self.files.clone();
        files.reverse();
        LooseReader { root: Arc::clone(&self.root), files, open: None }
    }
}

impl BlobSource for LooseBlob {
    fn open_blob(&self, digest: Digest) -> io::Result<Option<Box<dyn Read + Send>>> {
        Ok((digest == self.digest).then(|| Box::new(self.open()) as Box<dyn Read + Send>))
    }
}

impl From<LooseBlob> for OfferedBlob {
    fn from(blob: LooseBlob) -> Self {
        Self { digest: blob.digest, source: Arc::new(blob) }
    }
}

struct LooseReader {
    root: Arc<Root>,
    /// Those to come, the next one last.
    files: Vec<(PathBuf, u64)>,
    /// The one being read, how much of it is left, and its path.
    open: Option<(std::fs::File, u64, PathBuf)>,
}

impl Read for LooseReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match &mut self.open {
                Some((file, left, path)) if *left > 0 => {
                    let most = buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    let read = file.read(&mut buffer[..most])?;
                    if read == 0 {
                        let path = self.root.path.join(path);
                        return Err(io::Error::other(format!(
                            "{} changed since it was looked at; begin again",
                            path.display()
                        )));
                    }
                    *left -= read as u64;
                    return Ok(read);
                }
                _ => {
                    let Some((path, size)) = self.files.pop() else { return Ok(0) };
                    let file = beneath::open_file(self.root.directory.as_fd(), &path).map_err(|error| {
                        let path = self.root.path.join(&path);
                        io::Error::new(
                            error.kind(),
                            format!("{}: {error}; it changed since it was looked at", path.display()),
                        )
                    })?;
                    self.open = Some((file, size, path));
                }
            }
        }
    }
}

impl Snapshot {
    /// A blob of the tree; `None` when it has no such blob. The manifest is not one of them.
    #[must_use]
    pub fn blob(&self, digest: Digest) -> Option<LooseBlob> {
        let files = self.index().get(&digest)?.iter().filter_map(|index| {
            let Entry { path, kind: Kind::File(file) } = self.manifest.entries().get(*index)? else { return None };
            Some((self.single.as_ref().unwrap_or(path).clone(), file.size))
        });
        Some(LooseBlob { digest, root: Arc::clone(&self.root), files: files.collect() })
    }

    fn index(&self) -> &HashMap<Digest, Vec<usize>> {
        self.index.get_or_init(|| {
            let mut index: HashMap<Digest, Vec<usize>> = HashMap::new();
            // Of packs and files with the same bytes one is enough.
            let mut filled = None;
            for (entry, Entry { kind, .. }) in self.manifest.entries().iter().enumerate() {
                let Kind::File(file) = kind else { continue };
                match file.place {
                    Place::Empty => {}
                    Place::Own => {
                        index.entry(file.digest).or_insert_with(|| vec![entry]);
                    }
                    Place::Packed { pack, offset } => {
                        let Some(digest) = self.manifest.packs().get(pack as usize) else { continue };
                        if offset == 0 {
                            filled = (!index.contains_key(digest)).then_some(pack);
                        }
                        if filled == Some(pack) {
                            index.entry(*digest).or_default().push(entry);
                        }
                    }
                }
            }
            index
        })
    }
}

impl BlobSource for Snapshot {
    fn open_blob(&self, digest: Digest) -> io::Result<Option<Box<dyn Read + Send>>> {
        if digest == self.digest {
            return Ok(Some(Box::new(Cursor::new(self.encoded.clone()))));
        }
        match self.blob(digest) {
            Some(blob) => Ok(Some(Box::new(blob.open()))),
            None => Ok(None),
        }
    }
}
