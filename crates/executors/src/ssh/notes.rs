//! That something of a process is on a host: a file a connection, which goes with it, and whose lock says that its process
//! lives.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::target::Target;

/// The file of one connection. Its name is what its things are called on the host.
#[derive(Debug)]
pub(super) struct Note {
    path: PathBuf,
    /// Held as long as this process lives.
    _lock: File,
}

impl Note {
    /// Writes that something called `id` will be on `target`.
    pub(super) fn write(directory: &Path, id: &str, target: &Target) -> io::Result<Self> {
        DirBuilder::new().mode(0o700).recursive(true).create(directory)?;
        let path = directory.join(id);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.lock()?;
        file.write_all(&serde_json::to_vec(target)?)?;
        Ok(Self { path, _lock: file })
    }

    /// Nothing is there any more.
    pub(super) fn remove(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "a note of a host stays");
        }
    }
}

/// A note whose process is dead. It can't be found by another as long as this is held.
#[derive(Debug)]
pub(super) struct LeftNote {
    /// What its things are called on the host.
    pub(super) id: String,
    /// Which host.
    pub(super) target: Target,
    note: Note,
}

impl LeftNote {
    pub(super) fn remove(self) {
        self.note.remove();
    }
}

/// Notes whose processes are dead.
pub(super) fn left(directory: &Path) -> io::Result<Vec<LeftNote>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut left = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let Ok(mut file) = File::open(&path) else { continue };
        if file.try_lock().is_err() {
            continue;
        }
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let id = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let note = Note { path, _lock: file };
        match serde_json::from_str(&text) {
            Ok(target) => left.push(LeftNote { id, target, note }),
            // Its process died before it was there.
            Err(_) => note.remove(),
        }
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_notes_of_the_dead_are_found_and_each_by_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let notes = directory.path().join("hosts");
        assert!(left(&notes).expect("nothing is no error").is_empty());
        let target = Target { host: "build-1".to_owned(), port: Some(2222), ..Target::default() };
        let note = Note::write(&notes, "a1", &target).expect("it can be written");
        assert!(left(&notes).expect("readable").is_empty(), "its process lives");
        drop(note);
        let found = left(&notes).expect("readable");
        assert_eq!(found.iter().map(|left| (left.id.as_str(), &left.target)).collect::<Vec<_>>(), [("a1", &target)]);
        assert!(left(&notes).expect("readable").is_empty(), "somebody has it");
        found.into_iter().for_each(LeftNote::remove);
        fs::write(notes.join("a2"), "{\"ho").expect("writable");
        assert!(left(&notes).expect("readable").is_empty() && !notes.join("a2").exists());
    }
}
