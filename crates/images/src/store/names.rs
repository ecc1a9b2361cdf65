//! What names were found to be, the last time somebody asked.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

use executr_spec::Digest;
use serde::{Deserialize, Serialize};

use crate::error::ImageError;
use crate::reference::Reference;

/// A directory of records, one for a name, in files called by the names' digests.
#[derive(Clone, Debug)]
pub(super) struct Names {
    directory: PathBuf,
}

/// What a name was found to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The name, in full.
    pub(super) name: String,
    /// The digest of the manifest for the store's platform.
    pub(super) manifest: Digest,
}

impl Names {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(Digest::of(name.as_bytes()).to_string())
    }

    /// What a name was found to be.
    pub(super) fn find(&self, reference: &Reference) -> Result<Option<Record>, ImageError> {
        let path = self.path(&reference.to_string());
        match fs::read(&path) {
            // What can't be understood is found out anew.
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ImageError::store("read", &path)(error)),
        }
    }

    /// Notes what a name was found to be.
    pub(super) fn note(&self, record: &Record) -> Result<(), ImageError> {
        let path = self.path(&record.name);
        let write = || {
            let mut file = fresh_file(&self.directory)?;
            file.1.write_all(&serde_json::to_vec(record)?)?;
            fs::rename(&file.0, &path)
        };
        write().map_err(ImageError::store("write", &path))
    }
}

/// A file under a name nobody has, in a directory.
fn fresh_file(directory: &std::path::Path) -> io::Result<(PathBuf, fs::File)> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!(".new-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = directory.join(name);
    fs::File::create(&path).map(|file| (path, file))
}
