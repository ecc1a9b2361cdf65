//! A container's directory, by which it is known when nobody remembers it.
//!
//! ```text
//! STATE/NAME/labels        whose it is and what for, as JSON
//! STATE/NAME/config.json   what its runtime is told
//! STATE/NAME/root          where its root is mounted, in a namespace nobody else sees
//! STATE/NAME/upper, work   what it has written
//! STATE/NAME/runtime       what its runtime notes
//! STATE/NAME/log           what went wrong
//! ```

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What is read of a log at most, in bytes.
const LOG: u64 = 4096;

/// A container's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    directory: PathBuf,
}

impl Record {
    /// Makes one, with its labels before anything else.
    pub(super) fn create(state: &Path, name: &str, labels: &BTreeMap<String, String>) -> io::Result<Self> {
        make(state, 0o700).or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Ok(()),
            io::ErrorKind::NotFound => DirBuilder::new().recursive(true).mode(0o700).create(state),
            _ => Err(error),
        })?;
        let record = Self { directory: state.join(name) };
        make(&record.directory, 0o700)?;
        fs::write(record.file("labels"), serde_json::to_vec(labels)?)?;
        for name in ["root", "work", "runtime"] {
            make(&record.file(name), 0o700)?;
        }
        // The mode of the container's root directory.
        make(&record.upper(), 0o755)?;
        Ok(record)
    }

    /// One that exists, or did.
    pub(super) fn at(state: &Path, name: &str) -> Self {
        Self { directory: state.join(name) }
    }

    /// The names of all that bear this label, with its value.
    pub(super) fn labelled(state: &Path, label: &str) -> io::Result<Vec<(String, String)>> {
        let entries = match fs::read_dir(state) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            // Being made, or being removed: whoever does that isn't dead, or comes by again.
            let Ok(text) = fs::read(entry.path().join("labels")) else { continue };
            let labels: BTreeMap<String, String> = serde_json::from_slice(&text).unwrap_or_default();
            if let (Ok(name), Some(value)) = (entry.file_name().into_string(), labels.get(label)) {
                found.push((name, value.clone()));
            }
        }
        Ok(found)
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(super) fn root(&self) -> PathBuf {
        self.file("root")
    }

    pub(super) fn upper(&self) -> PathBuf {
        self.file("upper")
    }

    pub(super) fn runtime(&self) -> PathBuf {
        self.file("runtime")
    }

    /// A file for what goes wrong, which can be read when it is removed.
    pub(super) fn log(&self) -> io::Result<File> {
        OpenOptions::new().create_new(true).read(true).append(true).mode(0o600).open(self.file("log"))
    }
}

/// What went wrong, in one line; empty when nothing did.
pub(super) fn logged(log: &mut File) -> String {
    let mut text = Vec::new();
    // As much as can be read.
    let _ = log.rewind().and_then(|()| log.take(LOG).read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text);
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

fn make(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_found_by_their_labels() {
        let temp = tempfile::tempdir().unwrap();
        let state = temp.path().join("containers");
        assert_eq!(Record::labelled(&state, "owner").unwrap(), []);
        let labels = |value: &str| [("owner".to_owned(), value.to_owned())].into();
        let record = Record::create(&state, "one", &labels("a")).unwrap();
        Record::create(&state, "two", &BTreeMap::new()).unwrap();
        fs::create_dir(state.join("somebody-elses")).unwrap();
        assert_eq!(Record::labelled(&state, "owner").unwrap(), [("one".to_owned(), "a".to_owned())]);
        assert!(Record::create(&state, "one", &labels("b")).is_err(), "names are nobody else's");
        let mut log = record.log().unwrap();
        fs::write(record.file("log"), "first\n\n second \n").unwrap();
        fs::remove_dir_all(record.directory()).unwrap();
        assert_eq!(logged(&mut log), "first; second");
    }
}
