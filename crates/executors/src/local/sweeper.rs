//! Job directories that dead processes left, by the boards they stand on.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use executr_tree::FileLock;

use super::work_directory::{belongs_to, boards, names, parts_of, remove_job};
use crate::sweep::{Leftover, SweepError, Sweeper, size};

/// Finds what dead processes left of jobs that ran in directories of this machine.
#[derive(Clone, Debug)]
pub struct LocalSweeper {
    /// Where job directories are made.
    pub work_dir: PathBuf,
}

#[async_trait]
impl Sweeper for LocalSweeper {
    async fn find(&self) -> Result<Vec<Box<dyn Leftover>>, SweepError> {
        find(&self.work_dir).map_err(|source| SweepError::Look { path: self.work_dir.clone(), source })
    }
}

fn find(work_dir: &Path) -> io::Result<Vec<Box<dyn Leftover>>> {
    let metadata = match fs::metadata(work_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => found?,
    };
    // What others can write to proves nothing, and no worker of ours would have used it.
    if belongs_to(rustix::process::geteuid().as_raw(), metadata.uid(), metadata.mode()).is_err() {
        return Ok(Vec::new());
    }
    let (mut dead, mut in_use) = (Vec::new(), Vec::new());
    for path in boards(work_dir)? {
        match FileLock::try_acquire(&path)? {
            // One more than is known to be left: it stays, should we not get further.
            Some(lock) => dead.push((path, Board { lock: Some(lock), left: AtomicUsize::new(1) })),
            None => in_use.extend(names(&fs::read(&path)?)),
        }
    }
    let mut found: Vec<Box<dyn Leftover>> = Vec::new();
    for (path, board) in dead {
        let mut text = Vec::new();
        if let Some(lock) = &board.lock {
            lock.file().read_to_end(&mut text)?;
        }
        let board = Arc::new(board);
        let jobs = names(&text).into_iter().filter(|name| !in_use.contains(name));
        let jobs: Vec<_> = jobs.filter(|name| !parts_of(work_dir, name).is_empty()).collect();
        board.left.store(jobs.len().max(1), Ordering::Relaxed);
        if jobs.is_empty() {
            found.push(Box::new(Left { board, work_dir: work_dir.to_owned(), of: Of::Board(path) }));
            continue;
        }
        for job in jobs {
            found.push(Box::new(Left { board: Arc::clone(&board), work_dir: work_dir.to_owned(), of: Of::Job(job) }));
        }
    }
    Ok(found)
}

/// A dead process's board. It goes with the last of what stood on it.
struct Board {
    lock: Option<FileLock>,
    left: AtomicUsize,
}

impl Drop for Board {
    fn drop(&mut self) {
        if let Some(lock) = self.lock.take()
            && *self.left.get_mut() > 0
        {
            lock.leave();
        }
    }
}

struct Left {
    board: Arc<Board>,
    work_dir: PathBuf,
    of: Of,
}

enum Of {
    /// A job's directory and scripts.
    Job(String),
    /// A board with nothing on it.
    Board(PathBuf),
}

#[async_trait]
impl Leftover for Left {
    fn kind(&self) -> &'static str {
        match self.of {
            Of::Job(_) => "job directory",
            Of::Board(_) => "worker's board",
        }
    }

    fn name(&self) -> String {
        match &self.of {
            Of::Job(name) => self.work_dir.join(name).display().to_string(),
            Of::Board(path) => path.display().to_string(),
        }
    }

    fn bytes(&self) -> Option<u64> {
        Some(match &self.of {
            Of::Job(name) => parts_of(&self.work_dir, name).iter().map(|path| size(path)).sum(),
            Of::Board(path) => size(path),
        })
    }

    async fn remove(self: Box<Self>) -> Result<(), SweepError> {
        if let Of::Job(name) = &self.of {
            remove_job(&self.work_dir, name).map_err(|error| SweepError::stays(self.name(), &error))?;
        }
        self.board.left.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::work_directory::WorkDirectory;

    async fn found(path: &Path) -> Vec<Box<dyn Leftover>> {
        LocalSweeper { work_dir: path.to_owned() }.find().await.unwrap()
    }

    #[tokio::test]
    async fn what_is_found_stays_until_it_is_removed_and_nothing_else_goes() {
        let temp = tempfile::tempdir().unwrap();
        let living = Arc::new(WorkDirectory::open(temp.path().to_owned()).unwrap());
        let used = living.place("used", 1).unwrap();
        for name in ["left", "also-left", "used", "somebody-elses"] {
            fs::create_dir(temp.path().join(name)).unwrap();
        }
        fs::write(temp.path().join("left/file"), "12345").unwrap();
        fs::write(temp.path().join("left.run-1"), "123").unwrap();
        let board = temp.path().join(".executr-board-1-0");
        fs::write(&board, "left\nused\nalso-left\ngone\n..\n").unwrap();

        let seen = found(temp.path()).await;
        let told: Vec<_> = seen.iter().map(|left| (left.kind(), left.name(), left.bytes())).collect();
        let path = |name: &str| temp.path().join(name).display().to_string();
        let expected = [("job directory", path("left"), Some(8)), ("job directory", path("also-left"), Some(0))];
        assert_eq!(told, expected);
        assert!(found(temp.path()).await.is_empty(), "held by who found them");
        drop(seen);
        assert_eq!(fs::read_to_string(&board).unwrap().lines().count(), 5, "looking changes nothing");

        let mut again = found(temp.path()).await;
        again.remove(0).remove().await.unwrap();
        drop(again);
        assert!(board.exists() && !temp.path().join("left.run-1").exists());
        for left in found(temp.path()).await {
            left.remove().await.unwrap();
        }
        let there = |name: &str| temp.path().join(name).exists();
        assert!(!there("left") && !there("also-left") && !board.exists());
        assert!(there("used") && there("somebody-elses"));
        assert!(found(temp.path()).await.is_empty());
        drop(used);
    }

    #[tokio::test]
    async fn a_board_with_nothing_on_it_is_told_and_a_missing_directory_is_no_error() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join(".executr-board-1-0"), "gone\n").unwrap();
        let mut left = found(temp.path()).await;
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].kind(), "worker's board");
        left.remove(0).remove().await.unwrap();
        drop(left);
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
        assert!(found(&temp.path().join("missing")).await.is_empty());
    }
}
