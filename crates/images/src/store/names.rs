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
pub(crate) struct Record {
    /// The name, in full.
    pub(crate) name: String,
    /// The digest of the manifest for the store's platform.
    pub(crate) manifest: Digest,
    /// It was built here: nobody else may have it.
    #[serde(default)]
    pub(crate) is_built: bool,
    /// What it was built upon: where those of its layers are that nobody built here.
    #[serde(default)]
    pub(crate) base: Option<String>,
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

impl Names {
    /// All names, in order.
    pub(super) fn all(&self) -> Result<Vec<Record>, ImageError> {
        let listing = fs::read_dir(&self.directory).map_err(ImageError::store("list", &self.directory))?;
        // One that is gone, or can't be understood, names nothing.
        let read = |entry: io::Result<fs::DirEntry>| serde_json::from_slice(&fs::read(entry.ok()?.path()).ok()?).ok();
        let mut all: Vec<Record> = listing.filter_map(read).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    /// Forgets a name; whether there was one.
    pub(super) fn forget(&self, reference: &Reference) -> Result<bool, ImageError> {
        let path = self.path(&reference.to_string());
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            removed => removed.map(|()| true).map_err(ImageError::store("remove", &path)),
        }
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
