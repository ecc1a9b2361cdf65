//! Files of this machine on their way to an agent: each as a tree of its own.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use executr_spec::{Digest, Hasher};
use executr_tree::{BlobSource, Entry, FileEntry, Kind, Manifest, Place, SMALL};

use crate::contract::TreeAtHand;

/// The blobs of a tree that is held.
pub(super) struct Held(pub(super) Arc<dyn TreeAtHand>);

impl BlobSource for Held {
    fn open_blob(&self, digest: Digest) -> io::Result<Option<Box<dyn Read + Send>>> {
        self.0.blobs().open_blob(digest)
    }
}

/// Bytes in memory.
pub(super) struct InMemory(HashMap<Digest, Bytes>);

impl InMemory {
    /// A tree of one file with these bytes.
    pub(super) fn file(name: PathBuf, content: Bytes, mode: u32) -> io::Result<(Manifest, Self)> {
        let digest = Digest::of(&content);
        let manifest = tree(name, digest, content.len() as u64, mode)?;
        Ok((manifest, Self([(digest, content)].into())))
    }
}

impl BlobSource for InMemory {
    fn open_blob(&self, digest: Digest) -> io::Result<Option<Box<dyn Read + Send>>> {
        let bytes = self.0.get(&digest).cloned();
        Ok(bytes.map(|bytes| Box::new(Cursor::new(bytes)) as Box<dyn Read + Send>))
    }
}

/// A file of this machine.
pub(super) struct OnDisk(PathBuf);

impl OnDisk {
    /// A tree of this program.
    pub(super) fn program(path: &Path, name: PathBuf) -> io::Result<(Manifest, Self)> {
        let (mut file, mut hasher, mut size) = (File::open(path)?, Hasher::default(), 0);
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                read => {
                    hasher.update(&buffer[..read]);
                    size += read as u64;
                }
            }
        }
        Ok((tree(name, hasher.finish(), size, 0o755)?, Self(path.to_owned())))
    }
}

impl BlobSource for OnDisk {
    fn open_blob(&self, _digest: Digest) -> io::Result<Option<Box<dyn Read + Send>>> {
        Ok(Some(Box::new(File::open(&self.0)?)))
    }
}

fn tree(name: PathBuf, digest: Digest, size: u64, mode: u32) -> io::Result<Manifest> {
    // It is told its place by its size.
    let file = FileEntry { mode, size, digest, place: Place::Empty };
    let packs = if (1..SMALL).contains(&size) { vec![digest] } else { Vec::new() };
    Manifest::new(vec![Entry { path: name, kind: Kind::File(file) }], packs).map_err(io::Error::other)
}
