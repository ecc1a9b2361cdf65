//! The directory job directories lie in, shared by any number of worker processes.
//!
//! Each process keeps a board beside the job directories: a locked file with the names of those it uses now, one line
//! each. A board whose lock is free is a dead process's, and what stands on it was left behind. Nothing else in the
//! directory is ever touched.

use std::fs::{self, DirBuilder};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use executr_agent_protocol::SPARE_PREFIX;
use executr_tree::FileLock;

use crate::contract::ExecutorError;

const BOARD: &str = ".executr-board-";
/// Bytes of a line: a job's id, an attempt, a counter.
const LINE: usize = 64;

/// The directory, and this process's board.
#[derive(Debug)]
pub(super) struct WorkDirectory {
    path: PathBuf,
    board: FileLock,
    /// Which lines are taken.
    taken: Mutex<Vec<bool>>,
}

impl WorkDirectory {
    /// Opens the directory, making it when it isn't there, and removes what dead processes left in it.
    pub(super) fn open(path: PathBuf) -> Result<Self, ExecutorError> {
        let failed = |source| ExecutorError::Directory { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed)?;
        // Made absolute, because a keeper needn't have our current directory.
        let path = fs::canonicalize(&path).map_err(failed)?;
        let failed = |source| ExecutorError::Directory { path: path.clone(), source };
        let metadata = fs::metadata(&path).map_err(failed)?;
        if let Err(problem) = belongs_to(rustix::process::geteuid().as_raw(), metadata.uid(), metadata.mode()) {
            return Err(ExecutorError::Exposed { path, problem });
        }
        remove_leftovers(&path).map_err(failed)?;
        remove_spares(&path).map_err(failed)?;
        let board = new_board(&path).map_err(failed)?;
        Ok(Self { path, board, taken: Mutex::new(Vec::new()) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts a job directory's name on the board until the place is dropped. Doesn't make the directory.
    pub(super) fn place(self: &Arc<Self>, job: &str, attempt: u32) -> io::Result<JobPlace> {
        // A keeper whose worker was killed may still put down what an earlier attempt began with.
        let mut name = if attempt == 1 { job.to_owned() } else { format!("{job}-{attempt}") };
        let mut count = 0;
        // Taken by what couldn't be removed, or by a worker that shares the directory and hasn't heard yet that its
        // lease is lost.
        while fs::symlink_metadata(self.path.join(&name)).is_ok() {
            count += 1;
            name = format!("{job}-{attempt}-{count}");
        }
        let line = {
            let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            let line = taken.iter().position(|taken| !taken).unwrap_or_else(|| {
                taken.push(false);
                taken.len() - 1
            });
            taken[line] = true;
            line
        };
        let place = JobPlace { directory: self.path.join(&name), work: Arc::clone(self), line };
        self.write(line, &name)?;
        Ok(place)
    }

    fn write(&self, line: usize, name: &str) -> io::Result<()> {
        let mut text = [b' '; LINE];
        let length = name.len().min(LINE - 1);
        text[..length].copy_from_slice(&name.as_bytes()[..length]);
        text[LINE - 1] = b'\n';
        self.board.file().write_all_at(&text, (line * LINE) as u64)
    }
}

/// A job directory's name, on the board.
#[derive(Debug)]
pub(super) struct JobPlace {
    pub(super) directory: PathBuf,
    work: Arc<WorkDirectory>,
    line: usize,
}

impl Drop for JobPlace {
    fn drop(&mut self) {
        // A name that stays on the board costs whoever sweeps it one look.
        let _ = self.work.write(self.line, "");
        self.work.taken.lock().unwrap_or_else(PoisonError::into_inner)[self.line] = false;
    }
}

/// Whether `user` alone can put something into a directory of `owner` and `mode`: whoever else could would put files
/// into the place of those our jobs run.
pub(super) fn belongs_to(user: u32, owner: u32, mode: u32) -> Result<(), String> {
    if owner != user {
        return Err(format!("it belongs to user {owner}, and this is user {user}"));
    }
    if mode & 0o022 != 0 {
        return Err(format!("users other than its owner may write to it (mode {:04o})", mode & 0o7777));
    }
    Ok(())
}

pub(super) fn boards(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut boards = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(BOARD)) {
            boards.push(entry.path());
        }
    }
    Ok(boards)
}

fn new_board(path: &Path) -> io::Result<FileLock> {
    let process = std::process::id();
    let mut count = 0_u32;
    loop {
        // The number alone may be taken: process ids of other namespaces count anew.
        let file = path.join(format!("{BOARD}{process}-{count}"));
        if let Some(board) = FileLock::try_acquire(&file)? {
            if board.file().metadata()?.len() == 0 {
                return Ok(board);
            }
            board.leave();
        }
        count += 1;
    }
}

fn remove_leftovers(path: &Path) -> io::Result<()> {
    let mut dead = Vec::new();
    let mut in_use = Vec::new();
    for board in boards(path)? {
        match FileLock::try_acquire(&board)? {
            Some(lock) => dead.push(lock),
            None => in_use.extend(names(&fs::read(&board)?)),
        }
    }
    for lock in dead {
        let mut text = Vec::new();
        lock.file().read_to_end(&mut text)?;
        let mut left = false;
        for name in names(&text) {
            // A job that was handed out again may run under the same name by now.
            if in_use.contains(&name) {
                continue;
            }
            if let Err(error) = remove_job(path, &name) {
                tracing::warn!(directory = %path.join(&name).display(), %error, "cannot remove what a dead worker left");
                left = true;
            }
        }
        if left {
            lock.leave();
        }
    }
    Ok(())
}

/// Removes the empty directories that keepers kept for their next job. A living keeper makes another.
fn remove_spares(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(SPARE_PREFIX)) {
            // Not empty, or gone already: then it is none, or no longer.
            drop(fs::remove_dir(entry.path()));
        }
    }
    Ok(())
}

/// What there is of a job: its directory and scripts.
pub(super) fn parts_of(path: &Path, name: &str) -> Vec<PathBuf> {
    let scripts = format!("{name}{SCRIPT}");
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let parts = entries.filter(|entry| {
        let file = entry.file_name();
        file == *name || file.to_str().is_some_and(|file| file.starts_with(&scripts))
    });
    parts.map(|entry| entry.path()).collect()
}

/// Removes a job's directory and scripts, as much of them as can be; the first error.
pub(super) fn remove_job(path: &Path, name: &str) -> io::Result<()> {
    let mut done = Ok(());
    for part in parts_of(path, name) {
        let is_directory = fs::symlink_metadata(&part).is_ok_and(|metadata| metadata.is_dir());
        let removed = if is_directory { fs::remove_dir_all(&part) } else { fs::remove_file(&part) };
        match removed {
            Ok(()) => tracing::info!(path = %part.display(), "removed what a dead worker left"),
            Err(error) => done = done.and(Err(error)),
        }
    }
    done
}

/// What a script's name is after that of its job's directory, before its step's number.
pub(super) const SCRIPT: &str = ".run-";

pub(super) fn names(text: &[u8]) -> Vec<String> {
    let lines = text.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    let plain = |name: &&str| {
        !name.is_empty() && name.chars().all(|character| character.is_ascii_alphanumeric() || character == '-')
    };
    lines.map(str::trim).filter(plain).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_dead_process_used_is_removed() {
        let temp = tempfile::tempdir().unwrap();
        let living = Arc::new(WorkDirectory::open(temp.path().to_owned()).unwrap());
        let used = living.place("used-by-the-living", 1).unwrap();
        let given_back = living.place("given-back", 1).unwrap();
        for name in ["left", "used-by-the-living", "given-back", "somebody-elses"] {
            fs::create_dir(temp.path().join(name)).unwrap();
        }
        fs::write(temp.path().join("left.run-1"), "x").unwrap();
        drop(given_back);
        let dead_board = temp.path().join(".executr-board-1-0");
        fs::write(&dead_board, "left\nused-by-the-living\n..\n../left\n").unwrap();

        let other = WorkDirectory::open(temp.path().to_owned()).unwrap();
        let there = |name: &str| temp.path().join(name).exists();
        assert!(!there("left") && !there("left.run-1") && !dead_board.exists());
        assert!(there("used-by-the-living") && there("given-back") && there("somebody-elses"));
        drop((used, other));
    }

    #[test]
    fn spare_directories_of_keepers_go_unless_something_is_in_them() {
        let temp = tempfile::tempdir().unwrap();
        let [empty, full] = ["1", "2"].map(|process| temp.path().join(format!("{SPARE_PREFIX}{process}")));
        fs::create_dir(&empty).unwrap();
        fs::create_dir_all(full.join("somebody-elses")).unwrap();
        drop(WorkDirectory::open(temp.path().to_owned()).unwrap());
        assert!(!empty.exists() && full.exists());
    }

    #[test]
    fn a_directory_others_can_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("jobs");
        drop(WorkDirectory::open(path.clone()).unwrap());
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        for open in [0o770, 0o707, 0o1777] {
            mode(open);
            let error = WorkDirectory::open(path.clone()).unwrap_err().to_string();
            assert!(error.contains("--work-dir") && error.contains("chmod"), "{error}");
        }
        mode(0o755);
        drop(WorkDirectory::open(path.clone()).unwrap());
        assert!(belongs_to(1_000, 1_000, 0o700).is_ok() && belongs_to(1_000, 0, 0o700).is_err());
    }

    #[test]
    fn a_taken_name_is_passed_over() {
        let temp = tempfile::tempdir().unwrap();
        let work = Arc::new(WorkDirectory::open(temp.path().to_owned()).unwrap());
        for (attempt, expected) in [(1, "job"), (1, "job-1-1"), (2, "job-2"), (2, "job-2-1"), (2, "job-2-2")] {
            let place = work.place("job", attempt).unwrap();
            assert_eq!(place.directory, work.path().join(expected));
            fs::create_dir(&place.directory).unwrap();
        }
    }

    #[test]
    fn a_board_shows_what_is_in_use_now() {
        let temp = tempfile::tempdir().unwrap();
        let work = Arc::new(WorkDirectory::open(temp.path().to_owned()).unwrap());
        let shown = || names(&fs::read(&boards(temp.path()).unwrap()[0]).unwrap());
        let (first, second) = (work.place("a", 1).unwrap(), work.place("b", 1).unwrap());
        assert_eq!(shown(), ["a", "b"]);
        drop(first);
        let third = work.place("c", 1).unwrap();
        assert_eq!(shown(), ["c", "b"]);
        drop((second, third));
        assert!(shown().is_empty());
    }
}
