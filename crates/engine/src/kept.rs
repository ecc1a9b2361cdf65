//! Job directories that stay when their jobs are over, for somebody who wants to look.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

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
        // Whoever runs a job by hand may call it anything.
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
        let mut name: String = job.chars().map(plain).take(LONGEST).collect();
        if name.is_empty() || name.starts_with('.') {
            name.insert(0, '_');
        }
        let of_job = self.root.join(name);
        DirBuilder::new().recursive(true).mode(0o700).create(&of_job)?;
        let names = (1..).map(|count| if count == 1 { attempt.to_string() } else { format!("{attempt}-{count}") });
        let mut free = names.map(|name| of_job.join(name)).filter(|path| path.symlink_metadata().is_err());
        free.next().ok_or_else(|| io::ErrorKind::AlreadyExists.into())
    }

    /// It is there.
    pub(crate) fn note(&self, directory: KeptDirectory) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(directory);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

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
