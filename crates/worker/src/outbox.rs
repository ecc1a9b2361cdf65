//! Results until the coordinator has them.
//!
//! In memory as a rule. When an exchange has failed they are written to the spool directory, synced, so that they
//! outlive this process:
//!
//! ```text
//! SPOOL/results/<process>/lock            held by the process whose results these are
//! SPOOL/results/<process>/<lease>.json    a result
//! SPOOL/results/<process>/<lease>.output  output to append before it
//! SPOOL/results/<lease>.refused           a result the server can't make anything of
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
use tokio::sync::oneshot;

/// Where a result stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Output to be appended first is being written to disk. Until it is there the result isn't kept either: its lease
    /// runs out, should this process die.
    SavesOutput,
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
    /// Dropped, it ends the delivery of its output.
    delivery: Option<oneshot::Sender<()>>,
}

/// Resolves when a result's output needn't be delivered any longer, because nobody waits for the result.
pub(crate) type Unwanted = oneshot::Receiver<()>;

/// Output that a dead process left.
pub(crate) struct LeftTail {
    pub(crate) fence: Fence,
    pub(crate) token: String,
    pub(crate) tail: Tail,
    pub(crate) unwanted: Unwanted,
}

impl Entry {
    fn new(result: AttemptResult, token: String, state: State) -> Self {
        Self { result, token, state, file: None, delivery: None }
    }

    fn is_to_be_saved(&self) -> bool {
        self.file.is_none() && self.state != State::SavesOutput
    }
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

/// The most results of one report.
const MOST_RESULTS: usize = 256;
/// About how many bytes of output the results of one report bring; the server takes requests of up to 16 MiB.
const MOST_BYTES: usize = 4 << 20;

/// Results the coordinator doesn't have yet.
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
    left_tails: Vec<LeftTail>,
    /// How many results a report brings at most: fewer after one that was refused for what it brought.
    limit: usize,
    /// A report with this result alone was refused. One without any result shows whether that was its fault.
    suspect: Option<Fence>,
}

const LOCK: &str = "lock";

impl Outbox {
    pub(crate) fn open(root: PathBuf) -> Result<Self, OutboxError> {
        DirBuilder::new().recursive(true).mode(0o700).create(&root).map_err(failed("make", &root))?;
        let mut outbox = Self {
            root,
            entries: BTreeMap::new(),
            ready: 0,
            own: None,
            adopted: Vec::new(),
            left_tails: Vec::new(),
            limit: MOST_RESULTS,
            suspect: None,
        };
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
        let mut entry = Entry::new(result, token, State::Ready);
        entry.file = Some(file.to_owned());
        if output.exists() {
            match Tail::load(&output) {
                Ok(tail) => {
                    let (delivery, unwanted) = oneshot::channel();
                    entry.delivery = Some(delivery);
                    entry.state = State::WaitsForOutput;
                    self.left_tails.push(LeftTail { fence, token: entry.token.clone(), tail, unwanted });
                }
                Err(error) => {
                    tracing::warn!(file = %output.display(), %error, "output that was left can't be read");
                }
            }
        }
        self.ready += usize::from(entry.state == State::Ready);
        self.entries.insert(fence, entry);
        Ok(())
    }

    /// Output that dead processes left, to be appended.
    pub(crate) fn take_left_tails(&mut self) -> Vec<LeftTail> {
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
        let waits = |entry: &Entry| matches!(entry.state, State::SavesOutput | State::WaitsForOutput);
        self.entries.iter().filter(move |(_, entry)| waits(entry)).map(|(fence, _)| *fence)
    }

    /// Takes a result that can be reported.
    pub(crate) fn put(&mut self, result: AttemptResult) {
        self.ready += 1;
        self.entries.insert(result.fence, Entry::new(result, String::new(), State::Ready));
    }

    /// Takes a result whose output is to be appended first; says where that output is to be written until then, unless
    /// it can't be: then the output is lost.
    pub(crate) fn put_before_output(&mut self, result: AttemptResult, token: String) -> Option<PathBuf> {
        let fence = result.fence;
        self.entries.insert(fence, Entry::new(result, token, State::SavesOutput));
        match self.folder() {
            Ok(folder) => Some(folder.join(fence.lease.to_string()).with_extension("output")),
            Err(error) => {
                tracing::warn!(%fence, %error, "output is lost: it can't be kept until the server is back");
                self.output_done(&fence);
                None
            }
        }
    }

    /// Its output is on disk; `None` when the result isn't wanted any longer, and the file is to go.
    pub(crate) fn output_saved(&mut self, fence: &Fence) -> Option<Unwanted> {
        let entry = self.entries.get_mut(fence).filter(|entry| entry.state == State::SavesOutput)?;
        let (delivery, unwanted) = oneshot::channel();
        entry.state = State::WaitsForOutput;
        entry.delivery = Some(delivery);
        Some(unwanted)
    }

    /// Its output is appended, or will never be.
    pub(crate) fn output_done(&mut self, fence: &Fence) {
        if let Some(entry) = self.entries.get_mut(fence)
            && matches!(entry.state, State::SavesOutput | State::WaitsForOutput)
        {
            entry.state = State::Ready;
            self.ready += 1;
            if let Some(file) = &entry.file {
                let _ = fs::remove_file(file.with_extension("output"));
            }
        }
    }

    /// Results that are ready, to be reported now: as many as one report may bring. None while one is
    /// [suspect](Self::suspect).
    pub(crate) fn report(&mut self) -> Vec<AttemptResult> {
        let (mut results, mut bytes) = (Vec::new(), 0);
        if self.ready == 0 || self.suspect.is_some() {
            return results;
        }
        for entry in self.entries.values_mut().filter(|entry| entry.state == State::Ready) {
            bytes += entry.result.output.as_ref().map_or(0, |output| output.records.as_bytes().len());
            if results.len() >= self.limit || bytes > MOST_BYTES && !results.is_empty() {
                break;
            }
            entry.state = State::Reported;
            self.ready -= 1;
            results.push(entry.result.clone());
        }
        results
    }

    /// The result whose fault it may be that a report was refused.
    pub(crate) fn suspect(&self) -> Option<Fence> {
        self.suspect
    }

    /// The coordinator took a report: one without results when `suspect` is given, which was then to blame.
    pub(crate) fn report_was_taken(&mut self, suspect: Option<Fence>) {
        self.limit = MOST_RESULTS.min(self.limit * 2);
        if suspect.is_some() && suspect == self.suspect {
            self.suspect = None;
            self.put_aside(suspect);
        }
    }

    /// The coordinator couldn't make anything of a report that brought these, or of one without results because one was
    /// suspect; whether it is worth trying again at once.
    pub(crate) fn report_was_refused(&mut self, brought: &[Fence]) -> bool {
        match brought {
            [] => {
                // It isn't to blame.
                self.suspect = None;
                false
            }
            [only] => {
                self.suspect = Some(*only);
                true
            }
            several => {
                self.limit = several.len() / 2;
                true
            }
        }
    }

    /// Lets go of a result the coordinator can't make anything of, and keeps it for people to look at.
    fn put_aside(&mut self, fence: Option<Fence>) {
        let Some(fence) = fence else { return };
        let Some(entry) = self.entries.get(&fence) else { return };
        let path = self.root.join(fence.lease.to_string()).with_extension("refused");
        let saved = write_synced(&path, entry);
        self.remove(&fence);
        match saved {
            Ok(()) => {
                tracing::error!(%fence, file = %path.display(), "the server refuses a result: dropped, kept in a file");
            }
            Err(error) => {
                tracing::error!(%fence, %error, "the server refuses a result: dropped, and can't be kept");
            }
        }
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
        if !self.entries.values().any(Entry::is_to_be_saved) {
            return;
        }
        if let Err(error) = self.try_save() {
            tracing::warn!(%error, "results are kept in memory only");
        }
    }

    fn try_save(&mut self) -> Result<(), OutboxError> {
        let folder = self.folder()?;
        for entry in self.entries.values_mut().filter(|entry| entry.is_to_be_saved()) {
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
mod tests;
