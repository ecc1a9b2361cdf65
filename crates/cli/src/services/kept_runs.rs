//! The runs of `executr run FILE` on this machine: a directory each, kept after its end so that it can be looked at,
//! repeated, or gone on with when its process died.
//!
//! ```text
//! workflows/<id>/run.json     what it is and how it stands
//! workflows/<id>/…            its database, its jobs while they run
//! workflows/<id>/consoles     a socket: where that process takes calls of `executr exec`
//! workflows/<id>.lock         held by the process that has it open
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use executr_api::RunView;
use executr_executors::local::LocalSweeper;
use executr_executors::sweep::{Leftover, SweepError, Sweeper as _};
use executr_spec::workflow::ArchiveKind;
use executr_spec::{RunId, Timestamp};
use executr_tree::FileLock;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::leftovers::{dead_directories, within};
use super::make_directory;
use crate::errors::{Failure, Result};
use crate::exit::Exit;

/// So many ended runs are kept,
const MOST: usize = 100;
/// for so long.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// What is written of a run beside its database.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RunNote {
    /// The file it was made of, absolute.
    pub(crate) file: PathBuf,
    /// The repository its jobs start from, absolute.
    pub(crate) repository: PathBuf,
    /// When it was begun.
    pub(crate) created_at: Timestamp,
    /// What its jobs bring back here, by the names of artifacts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) coming_back: BTreeMap<String, ComingBack>,
    /// The run and those that repeat it, as they stood when this was written; the newest last.
    pub(crate) runs: Vec<RunView>,
}

/// What is unpacked when its job is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ComingBack {
    /// Into which directory, absolute.
    pub(crate) directory: PathBuf,
    /// What it is packed as.
    pub(crate) archive: ArchiveKind,
}

impl RunNote {
    /// The one that isn't over. While no process has it open, that one died.
    pub(crate) fn dead(&self) -> Option<&RunView> {
        self.runs.iter().rev().find(|run| !run.state.is_final())
    }

    fn is_over(&self) -> bool {
        self.dead().is_none()
    }
}

/// A run that is kept.
#[derive(Clone, Debug)]
pub(crate) struct KeptNote {
    path: PathBuf,
    /// What is written of it.
    pub(crate) note: RunNote,
    /// Whether a process has it open.
    pub(crate) is_open: bool,
}

/// Where the runs of this machine are.
#[derive(Clone, Debug)]
pub(crate) struct KeptRuns {
    root: PathBuf,
}

impl KeptRuns {
    /// Those of a data directory.
    pub(crate) fn of(data: &Path) -> Self {
        Self { root: data.join("workflows") }
    }

    /// Makes a directory for a run, and removes those of long ago.
    pub(crate) fn make(&self, note: &RunNote) -> Result<KeptRun> {
        make_directory(&self.root)?;
        self.prune(note.created_at);
        let path = self.root.join(Uuid::now_v7().to_string());
        let lock = lock(&path)?.ok_or_else(|| Failure::doing("make a directory for the run", "its name is taken"))?;
        make_directory(&path)?;
        let kept = KeptRun { path, _lock: lock };
        kept.write(note)?;
        Ok(kept)
    }

    /// All runs, the newest first.
    pub(crate) fn list(&self) -> Vec<KeptNote> {
        let Ok(entries) = fs::read_dir(&self.root) else { return Vec::new() };
        let mut notes: Vec<KeptNote> = entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let note = read(&path)?;
                let is_open = matches!(FileLock::try_acquire(&lock_of(&path)), Ok(None));
                Some(KeptNote { path, note, is_open })
            })
            .collect();
        notes.sort_by(|a, b| b.path.cmp(&a.path));
        notes
    }

    /// Whether it is one of them.
    pub(crate) fn has(&self, run: RunId) -> bool {
        self.list().iter().any(|kept| kept.note.runs.iter().any(|view| view.id == run))
    }

    /// What is noted of a run that another process has open.
    pub(crate) fn open_elsewhere(&self, run: RunId) -> Option<RunView> {
        let open = self.list().into_iter().filter(|kept| kept.is_open);
        open.flat_map(|kept| kept.note.runs).find(|view| view.id == run)
    }

    /// Opens the directory that has this run.
    pub(crate) fn open(&self, run: RunId) -> Result<(KeptRun, RunNote)> {
        let found = self.list().into_iter().find(|kept| kept.note.runs.iter().any(|view| view.id == run));
        let found = found.ok_or_else(|| {
            Failure::new(Exit::NOT_FOUND, format!("there is no run {run} on this machine"))
                .remedy("`executr runs --here` shows those there are")
        })?;
        found.open()
    }

    /// Opens the newest run of this file that died before its end.
    pub(crate) fn open_dead(&self, file: &Path) -> Result<(KeptRun, RunNote)> {
        let dead = self.list().into_iter().find(|kept| kept.note.file == file && !kept.is_open && !kept.note.is_over());
        let dead = dead.ok_or_else(|| {
            Failure::new(Exit::NOT_FOUND, format!("no run of {} is waiting to be gone on with", file.display()))
                .remedy("`executr runs --here` shows the runs there are; without --resume a new one is started")
        })?;
        dead.open()
    }

    /// What dead processes left here: what never became a run, what jobs of dead runs had, and whole runs that were begun
    /// before `old`. A run without its process can be gone on with, so it stays else.
    pub(super) async fn left(&self, old: Option<Timestamp>) -> Vec<std::result::Result<Box<dyn Leftover>, SweepError>> {
        let looked = dead_directories(&self.root, "run");
        let dead = match looked {
            Ok(dead) => dead,
            Err(source) => return vec![Err(SweepError::Look { path: self.root.clone(), source })],
        };
        let mut left: Vec<std::result::Result<Box<dyn Leftover>, SweepError>> = Vec::new();
        for directory in dead {
            let is_old = |note: RunNote| old.is_some_and(|old| note.created_at < old);
            let is_run = directory.path().join(NOTE).exists();
            if !is_run || read(directory.path()).is_some_and(is_old) {
                left.push(Ok(Box::new(directory)));
                continue;
            }
            let sweeper = LocalSweeper { work_dir: directory.path().to_owned() };
            let directory = Arc::new(directory);
            match sweeper.find().await {
                Ok(found) => left.extend(found.into_iter().map(|inner| Ok(within(inner, &directory)))),
                Err(error) => left.push(Err(error)),
            }
        }
        left
    }

    fn prune(&self, now: Timestamp) {
        let old = now.minus(LONGEST);
        let over = self.list().into_iter().filter(|kept| !kept.is_open);
        for (index, kept) in over.enumerate() {
            if (index >= MOST && kept.note.is_over()) || kept.note.created_at < old {
                remove(&kept.path);
            }
        }
    }
}

impl KeptNote {
    /// Its directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn open(self) -> Result<(KeptRun, RunNote)> {
        let lock = lock(&self.path)?.ok_or_else(|| {
            Failure::new(Exit::FAILURE, "the run is still going on in another process")
                .remedy("wait for that, or end it with Ctrl-C there")
        })?;
        Ok((KeptRun { path: self.path, _lock: lock }, self.note))
    }
}

/// A run's directory, open in this process.
#[derive(Debug)]
pub(crate) struct KeptRun {
    path: PathBuf,
    _lock: FileLock,
}

impl KeptRun {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes down how it stands: whole or not at all.
    pub(crate) fn write(&self, note: &RunNote) -> Result<()> {
        let path = self.path.join(NOTE);
        let new = path.with_extension("new");
        let text = serde_json::to_vec(note).map_err(|error| Failure::doing("write down the run", error))?;
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &path))
            .map_err(|error| Failure::doing(format!("write {}", path.display()), error))
    }
}

const NOTE: &str = "run.json";

fn read(path: &Path) -> Option<RunNote> {
    serde_json::from_slice(&fs::read(path.join(NOTE)).ok()?).ok()
}

fn lock_of(directory: &Path) -> PathBuf {
    directory.with_extension("lock")
}

fn lock(directory: &Path) -> Result<Option<FileLock>> {
    FileLock::try_acquire(&lock_of(directory))
        .map_err(|error| Failure::doing(format!("lock {}", directory.display()), error))
}

fn remove(path: &Path) {
    if let Ok(Some(_lock)) = FileLock::try_acquire(&lock_of(path)) {
        drop(fs::remove_dir_all(path));
        drop(fs::remove_file(lock_of(path)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(file: &str, created_at: Timestamp) -> RunNote {
        RunNote {
            file: file.into(),
            repository: "/".into(),
            created_at,
            coming_back: BTreeMap::new(),
            runs: Vec::new(),
        }
    }

    #[test]
    fn an_open_run_is_listed_and_not_opened_twice() {
        let data = tempfile::tempdir().expect("a directory");
        let runs = KeptRuns::of(data.path());
        let now = crate::show::now();
        let kept = runs.make(&note("/a.yaml", now)).expect("made");
        let listed = runs.list();
        assert!(matches!(&listed[..], [one] if one.is_open && one.path == kept.path));
        assert!(listed[0].clone().open().is_err());
        drop(kept);
        assert!(!runs.list()[0].is_open);
        assert!(runs.list()[0].clone().open().is_ok());
    }

    #[test]
    fn runs_of_long_ago_go_when_a_new_one_comes() {
        let data = tempfile::tempdir().expect("a directory");
        let runs = KeptRuns::of(data.path());
        let now = crate::show::now();
        drop(runs.make(&note("/old.yaml", now.minus(LONGEST * 2))).expect("made"));
        let _new = runs.make(&note("/new.yaml", now)).expect("made");
        let files: Vec<_> = runs.list().into_iter().map(|kept| kept.note.file).collect();
        assert_eq!(files, [PathBuf::from("/new.yaml")]);
    }
}
