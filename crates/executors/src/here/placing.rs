//! A tree that is being written into a directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use executr_tree::{Existing, MaterialiseError, Placed, materialise_unless};
use tokio::task::JoinHandle;

use super::{blocking, cannot_make};
use crate::contract::{ExecutorError, TreeAtHand};

/// Trees that are written for one sandbox, one after another. Whoever gives up waiting for one stops it; before anything
/// else is done in the directory [`over`](Self::over) waits until nothing is written any more.
#[derive(Debug, Default)]
pub(crate) struct Writing(Option<Placing>);

impl Writing {
    /// Puts a tree into a directory, which is made when it isn't there. What stands in its way is replaced.
    pub(crate) async fn put(&mut self, tree: Arc<dyn TreeAtHand>, target: PathBuf) -> Result<Placed, ExecutorError> {
        self.over().await;
        self.0 = Some(Placing::begin(move |stopped| {
            materialise_unless(stopped, tree.manifest(), tree.blobs(), &target, Existing::Replace)
        }));
        self.wait().await
    }

    /// Waits until the tree is there. Given up, it stops soon.
    async fn wait(&mut self) -> Result<Placed, ExecutorError> {
        let Some(placing) = &mut self.0 else { return Ok(Placed::default()) };
        let mut waited = Waited { stopped: &placing.stopped, to_its_end: false };
        let placed = (&mut placing.writing).await;
        waited.to_its_end = true;
        drop(waited);
        self.0 = None;
        placed.map_err(|_| ExecutorError::Broken)?.map_err(ExecutorError::from)
    }

    /// Waits until nothing is written any more.
    pub(crate) async fn over(&mut self) {
        if let Some(mut placing) = self.0.take() {
            // Whether it was through by then makes no difference.
            let _ = (&mut placing.writing).await;
        }
    }
}

/// Somebody waits for a tree; given up before its end, it needn't be whole.
struct Waited<'a> {
    stopped: &'a AtomicBool,
    to_its_end: bool,
}

impl Drop for Waited<'_> {
    fn drop(&mut self) {
        if !self.to_its_end {
            self.stopped.store(true, Ordering::Relaxed);
        }
    }
}

/// A tree that is being written. Dropped, it stops soon.
#[derive(Debug)]
struct Placing {
    stopped: Arc<AtomicBool>,
    writing: JoinHandle<Result<Placed, MaterialiseError>>,
}

impl Placing {
    fn begin(write: impl FnOnce(&AtomicBool) -> Result<Placed, MaterialiseError> + Send + 'static) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stopped);
        Self { stopped, writing: tokio::task::spawn_blocking(move || write(&told)) }
    }
}

impl Drop for Placing {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

/// Makes the directories between `root` and `target`, and `target`. No link on the way is followed: it could lead anywhere.
pub(crate) async fn make_below(root: &Path, target: &Path) -> Result<(), ExecutorError> {
    let (root, made) = (root.to_owned(), target.to_owned());
    blocking(move || make(&root, &made)).await?.map_err(|source| cannot_make(target, source))
}

/// As [`make_below`], on this thread.
pub(super) fn make(root: &Path, target: &Path) -> io::Result<()> {
    let outside = || io::Error::new(io::ErrorKind::InvalidInput, "it leads out of the job directory");
    let below = target.strip_prefix(root).map_err(|_| outside())?;
    let mut at = root.to_owned();
    for component in below.components() {
        at.push(component);
        match fs::symlink_metadata(&at) {
            Ok(there) if there.is_dir() => {}
            Ok(_) => {
                let text = format!("{} is no directory; a link is not followed", at.display());
                return Err(io::Error::new(io::ErrorKind::NotADirectory, text));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir(&at)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn nothing_is_written_any_more_once_a_tree_was_given_up() {
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        // As a tree that is large enough never to be there in time.
        let placing = Placing::begin(move |stopped| {
            while !stopped.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            end.store(true, Ordering::Relaxed);
            Err(MaterialiseError::Stopped)
        });
        let mut writing = Writing(Some(placing));
        {
            let waiting = writing.wait();
            assert!(waiting.now_or_never().is_none());
        }
        writing.over().await;
        assert!(ended.load(Ordering::Relaxed));
    }

    #[test]
    fn links_are_not_followed_out_of_the_job_directory() {
        let (place, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = place.path().join("job");
        fs::create_dir(&root).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), root.join("link")).unwrap();
        for below in ["link", "link/deeper"] {
            assert!(make(&root, &root.join(below)).is_err(), "{below}");
        }
        assert!(make(&root, elsewhere.path()).is_err());
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
        make(&root, &root.join("a/b")).unwrap();
        assert!(root.join("a/b").is_dir());
    }
}
