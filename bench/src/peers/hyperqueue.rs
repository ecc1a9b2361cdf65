//! HyperQueue, in a network namespace of its own because it listens on all interfaces.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::program::{Running, expect_file, within};

/// A HyperQueue server with its journal, and one worker with so many processors.
#[derive(Debug)]
pub struct HyperQueue {
    program: PathBuf,
    directory: tempfile::TempDir,
    // The namespace lives as long as the process that holds it. Fields drop in order: worker, server, holder.
    _worker: Running,
    _server: Running,
    holder: Running,
}

impl HyperQueue {
    /// Starts both. `clone` is a clone of its repository with a release build.
    ///
    /// # Errors
    /// When it isn't built or doesn't start; making the namespace needs root.
    pub fn start(clone: &Path, cpus: u32) -> io::Result<Self> {
        let program = clone.join("target/release/hq");
        expect_file(&program)?;
        let directory = tempfile::tempdir()?;
        let holder = Running::start(Command::new("unshare").args([
            "-n",
            "sh",
            "-c",
            "ip link set lo up && exec sleep infinity",
        ]))?;
        let peer = |arguments: &[&str]| -> io::Result<Running> {
            Running::start(enter(holder.pid(), &program, directory.path()).args(arguments))
        };
        let journal = directory.path().join("journal");
        within(Duration::from_secs(5), || {
            let up = Command::new("nsenter")
                .args(["-t", &holder.pid().to_string(), "-n", "ip", "-o", "link"])
                .output()
                .ok()?;
            String::from_utf8_lossy(&up.stdout).contains("LOOPBACK,UP").then_some(())
        })?;
        let server = peer(&["server", "start", "--host", "127.0.0.1", "--journal", &journal.to_string_lossy()])?;
        let hq = |arguments: &[&str]| enter(holder.pid(), &program, directory.path()).args(arguments).output();
        within(Duration::from_secs(20), || hq(&["server", "info"]).ok()?.status.success().then_some(()))?;
        let worker = peer(&["worker", "start", "--cpus", &cpus.to_string()])?;
        within(Duration::from_secs(20), || {
            let list = hq(&["worker", "list"]).ok()?;
            String::from_utf8_lossy(&list.stdout).contains("RUNNING").then_some(())
        })?;
        Ok(Self { program, directory, _worker: worker, _server: server, holder })
    }

    fn command(&self) -> Command {
        enter(self.holder.pid(), &self.program, self.directory.path())
    }

    /// How long `count` tasks of `/bin/true` take from the start of their submission to their end; output is kept.
    ///
    /// # Errors
    /// When it fails.
    pub fn tasks(&self, count: u32) -> io::Result<Duration> {
        self.submit(&["--array", &format!("1-{count}")])
    }

    /// How long one `submit --wait` of `true` takes as a whole.
    ///
    /// # Errors
    /// When it fails.
    pub fn submit_and_wait(&self) -> io::Result<Duration> {
        self.submit(&[])
    }

    fn submit(&self, arguments: &[&str]) -> io::Result<Duration> {
        let start = Instant::now();
        let output = self.command().args(["submit", "--wait"]).args(arguments).args(["--", "/bin/true"]).output()?;
        let took = start.elapsed();
        if output.status.success() {
            Ok(took)
        } else {
            Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
        }
    }
}

fn enter(holder: u32, program: &Path, directory: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["-t", &holder.to_string(), "-n"]).arg(program).arg("--server-dir").arg(directory.join("server"));
    command.current_dir(directory);
    command
}
