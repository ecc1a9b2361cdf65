//! A program of ours in the background, in a home of its own, ended with the test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::{loopback, program};

/// How long a server may take to answer, and a program to end. Generous: it bounds a broken test, not a good one.
const PATIENCE: Duration = Duration::from_secs(60);

/// A home directory for programs under test, with nothing of the developer's own in it or in their environment.
#[derive(Debug)]
pub struct Home {
    directory: tempfile::TempDir,
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Home {
    /// A new, empty home.
    ///
    /// # Panics
    ///
    /// If there can be no temporary directory.
    #[must_use]
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("executr-home-").tempdir();
        Self { directory: directory.expect("the temporary directory is writable") }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A command that starts here with a fixed environment, in which `executr` is the program under test.
    ///
    /// # Panics
    ///
    /// If `executr` does not build.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let folder = program::executr().parent().expect("a program lies in a folder").to_owned();
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", folder.display()))
            .env("HOME", self.path())
            .env("LANG", "C.UTF-8")
            .current_dir(self.path())
            .stdin(Stdio::null());
        command
    }

    /// `executr` with these arguments, started here.
    ///
    /// # Panics
    ///
    /// If `executr` does not build.
    #[must_use]
    pub fn executr(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&program::executr().display().to_string());
        command.args(arguments);
        command
    }
}

/// A running program whose output goes to a file. Told to stop, and after a while killed, when this value goes.
#[derive(Debug)]
pub struct Background {
    child: Child,
    log: PathBuf,
}

impl Background {
    /// Starts `command`; what it prints goes to a file in `home` named after `name`.
    ///
    /// # Panics
    ///
    /// If it can't be started.
    #[must_use]
    pub fn start(home: &Home, name: &str, command: &mut Command) -> Self {
        let log = home.path().join(format!("{name}.log"));
        let file = File::create(&log).expect("a home is writable");
        let copy = file.try_clone().expect("a file can be opened twice");
        let child = command.stdout(file).stderr(copy).spawn();
        let child = child.unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { child, log }
    }

    /// Starts a server, `executr` with `arguments` and `environment`, on a free port of the loopback interface, and waits
    /// until it says that it is healthy. Returns it with its URL.
    ///
    /// # Panics
    ///
    /// With what it printed, when it ends or takes too long.
    #[must_use]
    #[track_caller]
    pub fn serve(home: &Home, arguments: &[&str], environment: &[(&str, &str)]) -> (Self, String) {
        let name = arguments.first().copied().unwrap_or("server");
        let mut command = home.executr(arguments);
        command.envs(environment.iter().copied());
        Self::serve_with(home, name, &mut command)
    }

    /// As [`Background::serve`], with a command that runs `executr` in the end.
    ///
    /// # Panics
    ///
    /// As [`Background::serve`].
    #[must_use]
    #[track_caller]
    pub fn serve_with(home: &Home, name: &str, command: &mut Command) -> (Self, String) {
        let port_file = home.path().join(format!("{name}.port"));
        // Left by an earlier server of this name.
        drop(fs::remove_file(&port_file));
        command.env("EXECUTR_PORT", "0").env("EXECUTR_PORT_FILE", &port_file);
        let mut server = Self::start(home, name, command);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let port = fs::read_to_string(&port_file).ok().and_then(|text| text.trim().parse().ok());
            if let Some(port) = port.filter(|port| loopback::status_of(*port, "/api/v1/health") == Some(200)) {
                return (server, format!("http://127.0.0.1:{port}"));
            }
            let ended = server.child.try_wait().expect("a child of ours");
            assert!(ended.is_none() && Instant::now() < deadline, "no healthy server: {}", server.output());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// All it has printed.
    #[must_use]
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        if let Some(process) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            // Fails when it has ended already, which is as good.
            let _ = rustix::process::kill_process(process, rustix::process::Signal::TERM);
        }
    }

    /// Sends SIGKILL and waits.
    pub fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Whether it is over.
    ///
    /// # Panics
    ///
    /// Never for a child of ours.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_some()
    }

    /// Waits for its end; `None` when it takes too long.
    ///
    /// # Panics
    ///
    /// Never for a child of ours.
    pub fn wait(&mut self) -> Option<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Somebody else may have its number by now.
        if self.has_ended() {
            return;
        }
        self.terminate();
        if self.wait().is_none() {
            self.kill();
        }
    }
}
