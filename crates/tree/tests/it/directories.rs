//! Directories for tests.

use std::fs;
use std::path::{Path, PathBuf};

use executr_tree::{BlobDir, BlobSource, Existing, Manifest, Placed, Snapshot, SnapshotOptions, materialise, snapshot};

/// A directory of its own for a test: something to be made a tree of, blobs, and room for what comes out.
pub(crate) struct Scene {
    temp: tempfile::TempDir,
    pub(crate) blobs: BlobDir,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("source")).unwrap();
        let blobs = BlobDir::open(temp.path().join("blobs")).unwrap();
        Self { temp, blobs }
    }

    /// What trees are made of.
    pub(crate) fn source(&self) -> PathBuf {
        self.temp.path().join("source")
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    pub(crate) fn write(&self, path: impl AsRef<Path>, content: &[u8]) {
        let path = self.source().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Of everything in the source.
    pub(crate) fn snapshot(&self) -> Snapshot {
        snapshot(&self.source(), &SnapshotOptions::everything()).unwrap()
    }

    /// Puts all blobs of a snapshot where trees are put together from.
    pub(crate) fn keep(&self, snapshot: &Snapshot) {
        for digest in snapshot.manifest().blobs() {
            let mut from = snapshot.open_blob(digest).unwrap().unwrap();
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes).unwrap();
            if let (None, Some(mut partial)) = (self.blobs.hold(digest).unwrap(), self.blobs.bring(digest).unwrap()) {
                partial.append(&bytes).unwrap();
                partial.commit().unwrap();
            }
        }
    }

    pub(crate) fn place(&self, manifest: &Manifest, name: &str) -> Placed {
        materialise(manifest, &self.blobs, &self.at(name), Existing::Refuse).unwrap()
    }
}

/// The paths of a tree.
pub(crate) fn paths(manifest: &Manifest) -> Vec<&str> {
    manifest.entries().iter().map(|entry| entry.path.to_str().unwrap()).collect()
}
