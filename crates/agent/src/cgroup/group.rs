//! One group, by its directory. The directory's parent is never touched.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::poll;
use rustix::time::Timespec;

use crate::processes;

/// How long a frozen group may take to stand still, and a killed one to become empty.
const PATIENCE: Duration = Duration::from_millis(500);

/// A group of any hierarchy.
#[derive(Debug)]
pub(super) struct Group {
    path: PathBuf,
}

impl Group {
    /// Makes a group.
    pub(super) fn create(path: PathBuf) -> io::Result<Self> {
        fs::create_dir(&path)?;
        Ok(Self { path })
    }

    /// A group that exists.
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Sets one of its files.
    pub(super) fn set(&self, file: &str, value: &str) -> io::Result<()> {
        // Opened as it is: the kernel makes these files, and creating one is an error to hide nothing behind.
        use io::Write;
        fs::OpenOptions::new().write(true).open(self.path.join(file))?.write_all(value.as_bytes())
    }

    /// One of its files; `None` when it can't be read.
    pub(super) fn get(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.path.join(file)).ok()
    }

    /// A file that holds one number.
    pub(super) fn number(&self, file: &str) -> Option<u64> {
        self.get(file)?.trim().parse().ok()
    }

    /// A number of a file that holds `name number` lines.
    pub(super) fn entry(&self, file: &str, name: &str) -> Option<u64> {
        let content = self.get(file)?;
        let value = content.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        value.trim().parse().ok()
    }

    /// Moves this process in.
    pub(super) fn enter(&self) -> io::Result<()> {
        self.set("cgroup.procs", "0")
    }

    /// Processes in it, zombies not among them; this process neither.
    pub(super) fn processes(&self) -> Vec<i32> {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let listed = self.get("cgroup.procs").unwrap_or_default();
        listed.lines().filter_map(|pid| pid.parse().ok()).filter(|pid| *pid != own).collect()
    }

    /// Kills everything in it and in groups below it; this process must not be in. Death may follow a little later.
    pub(super) fn kill(&self) {
        if self.set("cgroup.kill", "1").is_ok() {
            return;
        }
        for below in self.below() {
            below.kill();
        }
        // Version 1: frozen, nothing can fork away; killed, all die as they thaw.
        let frozen = self.set("freezer.state", "FROZEN").is_ok();
        if frozen {
            wait_until(|| self.get("freezer.state").is_none_or(|state| state.trim() == "FROZEN"));
        }
        for pid in self.processes() {
            processes::signal(pid, libc::SIGKILL);
        }
        if frozen {
            // Whoever froze it must thaw it; if that fails the group is gone.
            let _ = self.set("freezer.state", "THAWED");
        }
    }

    /// Removes it, and groups that jobs made below it. Fails while a process is in it.
    pub(super) fn remove(&self) -> io::Result<()> {
        for below in self.below() {
            below.remove()?;
        }
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Kills what is in it and removes it; for groups of the dead.
    pub(super) fn kill_and_remove(&self) -> io::Result<()> {
        if self.remove().is_ok() {
            return Ok(());
        }
        wait_until(|| {
            self.kill();
            self.remove().is_ok()
        });
        self.remove()
    }

    fn below(&self) -> Vec<Group> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| Group::at(entry.path()))
            .collect()
    }
}

/// Looks again every millisecond, for [`PATIENCE`]. Version 1 has nothing to wait on.
fn wait_until(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() && begun.elapsed() < PATIENCE {
        let pause = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        // Being woken early is as good.
        let _ = poll(&mut [], Some(&pause));
    }
}
