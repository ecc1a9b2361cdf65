//! Results until the coordinator has them.
//!
//! In memory as a rule. When an exchange has failed they are written to the spool directory, synced, so that they
//! outlive this process:
//!
//! ```text
//! SPOOL/results/<process>/lock            held by the process whose results these are
//! SPOOL/results/<process>/<lease>.json    a result
//! SPOOL/results/<process>/<lease>.output  output to append before it
//! ```
//!
//! A folder whose lock is free is a dead process's; whoever opens the outbox next delivers what lies there, under the
//! leases it was made under.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use executr_api::{AttemptResult, Fence};
use executr_engine::output::Tail;
use executr_tree::FileLock;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Where a result stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Output has to be appended first.
    WaitsForOutput,
    /// To be reported.
    Ready,
    /// Stands in an exchange that is open.
    Reported,
}

/// A result on its way.
#[derive(Debug)]
struct Entry {
    result: AttemptResult,
    token: String,
    state: State,
    /// Its file, once it has one.
    file: Option<PathBuf>,
}

/// What stands in a result's file.
#[derive(Serialize, Deserialize)]
struct Saved {
    result: AttemptResult,
    token: String,
}

/// Why results can't be kept.
#[derive(Debug, Error)]
#[error("cannot {action} {}: {source}; results of jobs are kept there while the server is away", path.display())]
pub struct OutboxError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OutboxError {
    move |source| OutboxError { action, path: path.to_owned(), source }
}

/// A folder of results, locked.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    lock: Option<FileLock>,
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.lock = None;
        // Not when results lie in it: then the next one finds it with its lock free.
        let _ = fs::remove_dir(&self.path);
    }
}

/// Results the coordinator doesn't have yet.
#[derive(Debug)]
pub(crate) struct Outbox {
    root: PathBuf,
    entries: BTreeMap<Fence, Entry>,
    /// How many are ready to be reported.
    ready: usize,
    /// Own folder, made with the first result that needs it.
    own: Option<Folder>,
    /// Folders of dead processes.
    adopted: Vec<Folder>,
    /// Tails that came with what dead processes left.
    left_tails: Vec<(Fence, String, Tail)>,
}

const LOCK: &str = "lock";

impl Outbox {
    pub(crate) fn open(root: PathBuf) -> Result<Self, OutboxError> {
        DirBuilder::new().recursive(true).mode(0o700).create(&root).map_err(failed("make", &root))?;
        let mut outbox =
            Self { root, entries: BTreeMap::new(), ready: 0, own: None, adopted: Vec::new(), left_tails: Vec::new() };
        for folder in fs::read_dir(&outbox.root).map_err(failed("list", &outbox.root))?.flatten() {
            outbox.adopt(folder.path());
        }
        if !outbox.is_empty() {
            tracing::info!(results = outbox.entries.len(), "delivering results that an earlier worker left");
        }
        Ok(outbox)
    }

    fn adopt(&mut self, path: PathBuf) {
        let Ok(Some(lock)) = FileLock::try_acquire(&path.join(LOCK)) else { return };
        for file in fs::read_dir(&path).into_iter().flatten().flatten() {
            let file = file.path();
            if file.extension().is_some_and(|extension| extension == "json")
                && let Err(error) = self.load(&file)
            {
                tracing::warn!(file = %file.display(), %error, "a result that was left can't be read");
            }
        }
        self.adopted.push(Folder { path, lock: Some(lock) });
    }

    fn load(&mut self, file: &Path) -> io::Result<()> {
        let Saved { result, token } = serde_json::from_slice(&fs::read(file)?)?;
        let fence = result.fence;
        let output = file.with_extension("output");
        let mut state = State::Ready;
        if output.exists() {
            match Tail::load(&output) {
                Ok(tail) => {
                    self.left_tails.push((fence, token.clone(), tail));
                    state = State::WaitsForOutput;
                }
                Err(error) => {
                    tracing::warn!(file = %output.display(), %error, "output that was left can't be read");
                }
            }
        }
        self.ready += usize::from(state == State::Ready);
        self.entries.insert(fence, Entry { result, token, state, file: Some(file.to_owned()) });
        Ok(())
    }

    /// Output that dead processes left, to be appended.
    pub(crate) fn take_left_tails(&mut self) -> Vec<(Fence, String, Tail)> {
        std::mem::take(&mut self.left_tails)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn has_ready(&self) -> bool {
        self.ready > 0
    }

    pub(crate) fn contains(&self, fence: &Fence) -> bool {
        self.entries.contains_key(fence)
    }

    /// Leases whose results aren't ready yet: they are to be renewed.
    pub(crate) fn held(&self) -> impl Iterator<Item = Fence> {
        self.entries.iter().filter(|(_, entry)| entry.state == State::WaitsForOutput).map(|(fence, _)| *fence)
    }

    /// Takes a result that can be reported.
    pub(crate) fn put(&mut self, result: AttemptResult) {
        self.ready += 1;
        let entry = Entry { token: String::new(), state: State::Ready, file: None, result };
        self.entries.insert(entry.result.fence, entry);
    }

    /// Takes a result whose output is to be appended first; gives back that output, on disk if that can be.
    pub(crate) fn put_with_tail(&mut self, result: AttemptResult, token: String, tail: Tail) -> Option<Tail> {
        let fence = result.fence;
        self.entries.insert(fence, Entry { result, token, state: State::WaitsForOutput, file: None });
        let saved = self.folder().and_then(|folder| {
            let path = folder.join(fence.lease.to_string()).with_extension("output");
            tail.save(&path).map_err(failed("write", &path))
        });
        match saved {
            Ok(tail) => Some(tail),
            Err(error) => {
                tracing::warn!(%fence, %error, "output is lost: it can't be kept until the server is back");
                self.output_done(&fence);
                None
            }
        }
    }

    /// Its output is appended, or will never be.
    pub(crate) fn output_done(&mut self, fence: &Fence) {
        if let Some(entry) = self.entries.get_mut(fence)
            && entry.state == State::WaitsForOutput
        {
            entry.state = State::Ready;
            self.ready += 1;
            if let Some(file) = &entry.file {
                let _ = fs::remove_file(file.with_extension("output"));
            }
        }
    }

    /// All results that are ready, to be reported now.
    pub(crate) fn report(&mut self) -> Vec<AttemptResult> {
        if self.ready == 0 {
            return Vec::new();
        }
        self.ready = 0;
        let ready = self.entries.values_mut().filter(|entry| entry.state == State::Ready);
        ready
            .map(|entry| {
                entry.state = State::Reported;
                entry.result.clone()
            })
            .collect()
    }

    /// The coordinator has said what it thinks of a result, or that it isn't wanted.
    pub(crate) fn remove(&mut self, fence: &Fence) {
        if let Some(entry) = self.entries.remove(fence) {
            self.ready -= usize::from(entry.state == State::Ready);
            if let Some(file) = entry.file {
                let _ = fs::remove_file(&file);
                let _ = fs::remove_file(file.with_extension("output"));
            }
        }
    }

    /// Nothing is known of what became of these: they are to be reported again.
    pub(crate) fn report_again(&mut self, fences: &[Fence]) {
        for fence in fences {
            if let Some(entry) = self.entries.get_mut(fence)
                && entry.state == State::Reported
            {
                entry.state = State::Ready;
                self.ready += 1;
            }
        }
    }

    /// Writes to disk what isn't there yet. What can't be written stays in memory.
    pub(crate) fn save(&mut self) {
        if self.entries.values().all(|entry| entry.file.is_some()) {
            return;
        }
        if let Err(error) = self.try_save() {
            tracing::warn!(%error, "results are kept in memory only");
        }
    }

    fn try_save(&mut self) -> Result<(), OutboxError> {
        let folder = self.folder()?;
        for entry in self.entries.values_mut().filter(|entry| entry.file.is_none()) {
            let path = folder.join(entry.result.fence.lease.to_string()).with_extension("json");
            write_synced(&path, entry).map_err(failed("write", &path))?;
            entry.file = Some(path);
        }
        File::open(&folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", &folder))
    }

    fn folder(&mut self) -> Result<PathBuf, OutboxError> {
        if let Some(own) = &self.own {
            return Ok(own.path.clone());
        }
        let path = self.root.join(uuid::Uuid::new_v4().simple().to_string());
        DirBuilder::new().mode(0o700).create(&path).map_err(failed("make", &path))?;
        let lock_path = path.join(LOCK);
        let lock = FileLock::try_acquire(&lock_path).map_err(failed("lock", &lock_path))?;
        File::open(&self.root).and_then(|root| root.sync_all()).map_err(failed("sync", &self.root))?;
        self.own = Some(Folder { path: path.clone(), lock });
        Ok(path)
    }
}

/// Under another name first: what stands under a result's name is whole.
fn write_synced(path: &Path, entry: &Entry) -> io::Result<()> {
    let saved = Saved { result: entry.result.clone(), token: entry.token.clone() };
    let part = path.with_extension("part");
    let file = File::create(&part)?;
    serde_json::to_writer(&file, &saved)?;
    file.sync_all()?;
    fs::rename(&part, path)
}

#[cfg(test)]
mod tests {
    use executr_api::Outcome;
    use executr_spec::{JobId, LeaseId};
    use uuid::Uuid;

    use super::*;

    fn result(number: u128) -> AttemptResult {
        AttemptResult {
            fence: Fence { job: JobId(Uuid::from_u128(number)), attempt: 1, lease: LeaseId(Uuid::from_u128(number)) },
            outcome: Outcome::Succeeded,
            exit_code: Some(0),
            error_message: None,
            retryable: true,
            usage: None,
            steps: Vec::new(),
            output: None,
            output_bytes: 0,
            duration_us: 1,
        }
    }

    #[test]
    fn a_result_is_reported_until_there_is_a_verdict() {
        let temp = tempfile::tempdir().unwrap();
        let mut outbox = Outbox::open(temp.path().join("results")).unwrap();
        outbox.put(result(1));
        outbox.put(result(2));
        assert_eq!(outbox.report(), [result(1), result(2)]);
        assert!(!outbox.has_ready() && outbox.report().is_empty());
        outbox.remove(&result(1).fence);
        outbox.report_again(&[result(1).fence, result(2).fence]);
        assert_eq!(outbox.report(), [result(2)]);
        outbox.remove(&result(2).fence);
        assert!(outbox.is_empty());
    }

    #[test]
    fn what_a_dead_process_saved_the_next_one_delivers_and_nobody_else() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("results");
        let mut first = Outbox::open(root.clone()).unwrap();
        first.put(result(1));
        first.save();
        first.put(result(2));
        assert!(Outbox::open(root.clone()).unwrap().is_empty(), "the first one lives");
        drop(first);
        let mut second = Outbox::open(root.clone()).unwrap();
        assert_eq!(second.report(), [result(1)], "what wasn't saved is gone");
        second.remove(&result(1).fence);
        drop(second);
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "nothing stays behind");
    }

    #[test]
    fn half_a_result_is_none() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("dead");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("a.json"), "{\"result\":").unwrap();
        fs::write(folder.join("b.part"), "{}").unwrap();
        assert!(Outbox::open(temp.path().to_owned()).unwrap().is_empty());
    }
}
