//! The `executr` program as its users start it: a server, executors, single commands.

use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where the release build of the program is: beside this one.
///
/// # Errors
/// When it has not been built.
pub fn executr() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("executr");
    if program.is_file() {
        Ok(program)
    } else {
        Err(io::Error::other(format!("{} is missing; run `cargo build --release` first", program.display())))
    }
}

/// A process that is ended when this is dropped.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Starts `command` with its output thrown away.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(Self)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Bytes of memory it holds now, and the most it has held.
    ///
    /// # Errors
    /// When it is gone.
    pub fn memory(&self) -> io::Result<Memory> {
        memory(self.pid())
    }

    /// Processor time it has used so far.
    ///
    /// # Errors
    /// When it is gone.
    pub fn cpu(&self) -> io::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let field = |index: usize| after_name.split_whitespace().nth(index).and_then(|text| text.parse::<u64>().ok());
        let ticks = field(11).zip(field(12)).map(|(user, system)| user + system).ok_or(io::ErrorKind::InvalidData)?;
        // The kernel reports in hundredths of a second on every architecture served here.
        Ok(Duration::from_millis(ticks * 10))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if matches!(self.0.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Resident now.
    pub now: u64,
    /// The most that was resident.
    pub peak: u64,
}

/// What the kernel says of a process's memory.
///
/// # Errors
/// When it is gone.
pub fn memory(pid: u32) -> io::Result<Memory> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
            .map(|kib| kib * 1024)
            .ok_or(io::ErrorKind::InvalidData)
    };
    Ok(Memory { now: field("VmRSS:")?, peak: field("VmHWM:")? })
}

/// A server on loopback, with a database of its own.
#[derive(Debug)]
pub struct Server {
    /// Its process.
    pub process: Running,
    /// `http://127.0.0.1:port`
    pub url: String,
    // Removed when the process has ended.
    _directory: tempfile::TempDir,
}

impl Server {
    /// Starts a server on the embedded database, or on the PostgreSQL database at `db_url`.
    ///
    /// # Errors
    /// When it doesn't say within 20 s where it listens.
    pub fn start(db_url: Option<&str>, arguments: &[&str]) -> io::Result<Self> {
        let directory = tempfile::tempdir()?;
        let port_file = directory.path().join("port");
        let mut command = Command::new(executr()?);
        command.args(["server", "--port", "0", "--log-level", "warn", "--port-file"]).arg(&port_file);
        command.arg("--data-dir").arg(directory.path().join("data")).args(arguments);
        if let Some(url) = db_url {
            command.args(["--db-url", url]);
        }
        command.env("HOME", directory.path());
        let process = Running::start(&mut command)?;
        let port = within(Duration::from_secs(20), || {
            std::fs::read_to_string(&port_file)
                .ok()
                .filter(|text| text.ends_with('\n'))
                .map(|text| text.trim().to_owned())
        })?;
        Ok(Self { process, url: format!("http://127.0.0.1:{port}"), _directory: directory })
    }
}

/// An executor with a work and a cache directory of its own.
#[derive(Debug)]
pub struct Executor {
    /// Its process.
    pub process: Running,
    _directory: tempfile::TempDir,
}

impl Executor {
    /// Starts an executor with so many slots.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(server_url: &str, slots: u32, arguments: &[&str]) -> io::Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut command = Command::new(executr()?);
        command.args(["executor", "--name", "bench", "--log-level", "warn", "--server-url", server_url]);
        command.args(["--max-jobs", &slots.to_string()]).args(arguments);
        command.arg("--work-dir").arg(directory.path().join("work"));
        command.arg("--cache-dir").arg(directory.path().join("cache"));
        command.env("HOME", directory.path());
        Ok(Self { process: Running::start(&mut command)?, _directory: directory })
    }
}

/// Asks `probe` until it answers.
///
/// # Errors
/// When it hasn't within `limit`.
pub fn within<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> io::Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = probe() {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs a command to its end and returns how long it took.
///
/// # Errors
/// When it fails; with what it wrote to stderr.
pub fn timed(command: &mut Command) -> io::Result<Duration> {
    let start = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    let took = start.elapsed();
    if output.status.success() {
        Ok(took)
    } else {
        Err(io::Error::other(format!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr))))
    }
}

/// The first line that `command` writes to stdout, and the process that goes on.
///
/// # Errors
/// When it can't be started or ends without a line.
pub fn first_line(command: &mut Command) -> io::Result<(String, Running)> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut line = String::new();
    let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    BufReader::new(stdout).read_line(&mut line)?;
    Ok((line, Running(child)))
}

/// Whether a directory looks like the given peer's installation.
///
/// # Errors
/// When it doesn't, saying what was looked for.
pub fn expect_file(path: &Path) -> io::Result<()> {
    if path.exists() { Ok(()) } else { Err(io::Error::other(format!("{} is missing", path.display()))) }
}
