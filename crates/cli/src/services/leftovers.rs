//! What dead processes left on this machine, in all the places where this program keeps things.
//!
//! An executor adds what it leaves elsewhere by a [`Sweeper`] of its own in [`sweepers`].

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use executr_agent::cgroup::{DeadGroup, Hierarchies, of_dead_owners};
use executr_executors::local::LocalSweeper;
use executr_executors::oci::OciSweeper;
use executr_executors::ssh::SshSweeper;
use executr_executors::sweep::{Leftover, SweepError, Sweeper, size};
use executr_spec::Timestamp;
use executr_tree::{FileLock, LeftPartial, left_partials};

use super::TREES;
use super::kept_runs::KeptRuns;
use super::run_directory::{LOCK, left_in};
use super::worker::{containers, hosts};

/// What was found, and what couldn't be looked into.
#[derive(Default)]
pub(crate) struct Leftovers {
    /// What can be removed.
    pub(crate) found: Vec<Box<dyn Leftover>>,
    /// Where nobody could look.
    pub(crate) failed: Vec<SweepError>,
}

impl Leftovers {
    /// Looks everywhere.
    pub(crate) async fn find(sweepers: Vec<Box<dyn Sweeper>>, data: &Path, old_runs: Option<Timestamp>) -> Self {
        let mut all = Self::default();
        for sweeper in sweepers {
            match sweeper.find().await {
                Ok(found) => all.found.extend(found),
                Err(error) => all.failed.push(error),
            }
        }
        for left in KeptRuns::of(data).left(old_runs).await {
            match left {
                Ok(left) => all.found.push(left),
                Err(error) => all.failed.push(error),
            }
        }
        all
    }
}

/// Everybody who knows of things that may be left. Jobs of executors have their directories in `work_dir`; fetched programs are
/// kept in `cache_dir`.
pub(crate) fn sweepers(data: &Path, work_dir: &Path, cache_dir: &Path) -> Vec<Box<dyn Sweeper>> {
    let executor = data.join("executor");
    let mut sweepers: Vec<Box<dyn Sweeper>> = vec![
        // First whatever may still write to the directories.
        Box::new(OciSweeper::new(containers(data, &[]))),
        Box::new(SshSweeper::new(hosts(data))),
        Box::new(ControlGroups),
        Box::new(RunDirectories(data.join("runs"))),
        Box::new(LocalSweeper { work_dir: work_dir.to_owned() }),
    ];
    for directory in [data.join("cache"), data.join(TREES), executor.join(TREES), cache_dir.to_owned()] {
        sweepers.push(Box::new(Partials(directory)));
    }
    sweepers
}

/// Directories of `executr run`.
struct RunDirectories(PathBuf);

#[async_trait]
impl Sweeper for RunDirectories {
    async fn find(&self) -> Result<Vec<Box<dyn Leftover>>, SweepError> {
        let left = left_in(&self.0).map_err(|source| SweepError::Look { path: self.0.clone(), source })?;
        Ok(left.into_iter().map(|directory| Box::new(directory) as Box<dyn Leftover>).collect())
    }
}

/// A directory beside a lock that no living process holds, held by this one.
#[derive(Debug)]
pub(super) struct DeadDirectory {
    kind: &'static str,
    path: PathBuf,
    lock: Option<FileLock>,
    had_lock: bool,
}

impl DeadDirectory {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for DeadDirectory {
    fn drop(&mut self) {
        // Looking at it leaves it as it was.
        if let Some(lock) = self.lock.take().filter(|_| self.had_lock) {
            lock.leave();
        }
    }
}

#[async_trait]
impl Leftover for DeadDirectory {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn bytes(&self) -> Option<u64> {
        Some(size(&self.path))
    }

    async fn remove(mut self: Box<Self>) -> Result<(), SweepError> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(SweepError::stays(self.name(), &error)),
            _ => {
                // The lock goes with what it locked.
                drop(self.lock.take());
                Ok(())
            }
        }
    }
}

/// The directories in `parent` whose lock nobody holds.
pub(super) fn dead_directories(parent: &Path, kind: &'static str) -> io::Result<Vec<DeadDirectory>> {
    let entries = match fs::read_dir(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut paths = BTreeSet::new();
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() && path.extension().is_none() {
            paths.insert(path);
        }
    }
    let mut dead = Vec::new();
    for path in paths {
        let lock_path = path.with_extension(LOCK);
        let had_lock = lock_path.exists();
        if let Some(lock) = FileLock::try_acquire(&lock_path)? {
            // Its owner may have ended well since it was listed; and a lock of nothing is nothing.
            if path.exists() {
                dead.push(DeadDirectory { kind, path, lock: Some(lock), had_lock });
            }
        }
    }
    Ok(dead)
}

/// Something in a directory, which is held as long.
pub(super) fn within(inner: Box<dyn Leftover>, directory: &Arc<DeadDirectory>) -> Box<dyn Leftover> {
    Box::new(Within { inner, _directory: Arc::clone(directory) })
}

struct Within {
    inner: Box<dyn Leftover>,
    _directory: Arc<DeadDirectory>,
}

#[async_trait]
impl Leftover for Within {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn name(&self) -> String {
        self.inner.name()
    }

    fn bytes(&self) -> Option<u64> {
        self.inner.bytes()
    }

    async fn remove(self: Box<Self>) -> Result<(), SweepError> {
        self.inner.remove().await
    }
}

/// Groups of keepers and of jobs with limits.
struct ControlGroups;

#[async_trait]
impl Sweeper for ControlGroups {
    async fn find(&self) -> Result<Vec<Box<dyn Leftover>>, SweepError> {
        let groups = of_dead_owners(&Hierarchies::discover());
        Ok(groups.into_iter().map(|group| Box::new(LeftGroup(group)) as Box<dyn Leftover>).collect())
    }
}

struct LeftGroup(DeadGroup);

#[async_trait]
impl Leftover for LeftGroup {
    fn kind(&self) -> &'static str {
        "control group"
    }

    fn name(&self) -> String {
        let path = self.0.path().display();
        match self.0.processes() {
            0 => path.to_string(),
            1 => format!("{path} with a process"),
            processes => format!("{path} with {processes} processes"),
        }
    }

    fn bytes(&self) -> Option<u64> {
        None
    }

    async fn remove(self: Box<Self>) -> Result<(), SweepError> {
        let name = self.name();
        self.0.remove().map_err(|error| SweepError::stays(name, &error))
    }
}

/// Parts of files that were on their way into a directory of blobs.
struct Partials(PathBuf);

#[async_trait]
impl Sweeper for Partials {
    async fn find(&self) -> Result<Vec<Box<dyn Leftover>>, SweepError> {
        let left = left_partials(&self.0).map_err(|source| SweepError::Look { path: self.0.clone(), source })?;
        Ok(left.into_iter().map(|partial| Box::new(LeftPart(partial)) as Box<dyn Leftover>).collect())
    }
}

struct LeftPart(LeftPartial);

#[async_trait]
impl Leftover for LeftPart {
    fn kind(&self) -> &'static str {
        "part of a file"
    }

    fn name(&self) -> String {
        self.0.path().display().to_string()
    }

    fn bytes(&self) -> Option<u64> {
        Some(self.0.bytes())
    }

    async fn remove(self: Box<Self>) -> Result<(), SweepError> {
        let name = self.name();
        self.0.remove().map_err(|error| SweepError::stays(name, &error))
    }
}
