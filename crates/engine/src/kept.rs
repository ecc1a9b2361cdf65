//! Job directories that stay when their jobs are over, for somebody who wants to look.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// The longest name of a directory that most file systems take is 255 bytes; those of a matrix's jobs may be longer.
const LONGEST: usize = 200;

/// Where job directories go at the end of their attempts instead of being removed: `ROOT/<job>/<attempt>`. Whoever wants
/// to know which there are keeps a clone.
#[derive(Clone, Debug)]
pub struct KeptDirectories {
    root: PathBuf,
    kept: Arc<Mutex<Vec<KeptDirectory>>>,
}

/// The directory of an attempt that is over.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeptDirectory {
    /// The job's name in its run.
    pub job: String,
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// Where it is.
    pub path: PathBuf,
}

impl KeptDirectories {
    /// They go to `root`, which has to be on the same file system as the worker's job directories, and is made with the
    /// first.
    #[must_use]
    pub fn below(root: PathBuf) -> Self {
        Self { root, kept: Arc::default() }
    }

    /// Where they are.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Those that were kept until now, by job and attempt.
    #[must_use]
    pub fn list(&self) -> Vec<KeptDirectory> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        kept.sort();
        kept
    }

    /// A place for one; nothing stands there.
    pub(crate) fn place(&self, job: &str, attempt: u32) -> io::Result<PathBuf> {
        let of_job = self.root.join(name_of(job));
        DirBuilder::new().recursive(true).mode(0o700).create(&of_job)?;
        let names = (1..).map(|count| if count == 1 { attempt.to_string() } else { format!("{attempt}-{count}") });
        let mut free = names.map(|name| of_job.join(name)).filter(|path| path.symlink_metadata().is_err());
        free.next().ok_or_else(|| io::ErrorKind::AlreadyExists.into())
    }

    /// It is there, and had this as environment.
    pub(crate) fn note(&self, directory: KeptDirectory, note: Option<&KeptNote>) {
        if let Some(Err(error)) = note.map(|note| note.write(&directory.path)) {
            tracing::warn!(job = directory.job, %error, "the environment of a kept directory can't be noted");
        }
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(directory);
    }

    /// The directory of the job's attempt that ended last, if any was kept with its environment.
    #[must_use]
    pub fn newest(&self, job: &str) -> Option<PathBuf> {
        let entries = fs::read_dir(self.root.join(name_of(job))).ok()?;
        let directories = entries.filter_map(|entry| {
            let path = entry.ok()?.path();
            let noted = fs::metadata(note_of(&path)).ok()?.modified().ok()?;
            path.is_dir().then_some((noted, path))
        });
        directories.max().map(|(_, path)| path)
    }
}

/// What an attempt had whose directory is kept. It lies beside that, readable by its owner only, without any secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptNote {
    /// The environment of its last step; where that named the job directory it names the kept one.
    pub env: BTreeMap<String, String>,
    /// Variables of which that holds nothing: they had secrets in them, or no text.
    pub left_out: Vec<String>,
    /// Where its steps ran, when that was elsewhere than on the machine itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<String>,
}

impl KeptNote {
    /// What was noted of a kept directory.
    ///
    /// # Errors
    /// When nothing was, or it can't be read.
    pub fn of(directory: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(note_of(directory))?)?)
    }

    fn write(&self, directory: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(self)?;
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(note_of(directory))?.write_all(&text)
    }
}

fn note_of(directory: &Path) -> PathBuf {
    directory.with_extension("json")
}

/// What the directories of a job are in.
fn name_of(job: &str) -> String {
    // Whoever runs a job by hand may call it anything.
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    let mut name: String = job.chars().map(plain).take(LONGEST).collect();
    if name.is_empty() || name.starts_with('.') {
        name.insert(0, '_');
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attempt_has_a_place_of_its_own_below_the_root() {
        let temp = tempfile::tempdir().expect("a directory");
        let kept = KeptDirectories::below(temp.path().join("kept"));
        let place = |job: &str, attempt| {
            let path = kept.place(job, attempt).expect("writable");
            fs::create_dir(&path).expect("nothing stands there");
            path.strip_prefix(kept.root()).expect("below it").to_owned()
        };
        assert_eq!(place("build", 1), Path::new("build/1"));
        assert_eq!(place("build", 2), Path::new("build/2"));
        assert_eq!(place("build", 1), Path::new("build/1-2"));
        assert_eq!(place("..", 1), Path::new("_../1"));
        assert_eq!(place("a/../../b c", 1), Path::new("a-..-..-b-c/1"));
        assert_eq!(place(&"x".repeat(300), 1), Path::new(&"x".repeat(LONGEST)).join("1"));
    }
}
