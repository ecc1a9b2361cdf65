//! A server, executors and commands, as one test has them.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use executr_tests::background::{Background, Home};
use serde_json::Value;

use crate::http;

/// How long anything may take before a test gives up. Generous: it bounds a broken program, not a good one.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `probe` finds something.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a command printed, as text.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command that must succeed and returns what it printed.
#[track_caller]
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// A queue that is served, and commands that use it.
pub(crate) struct System {
    pub(crate) home: Home,
    pub(crate) url: String,
    pub(crate) server: Background,
}

impl System {
    /// Server and executor in one process: `executr up` with further flags.
    #[track_caller]
    pub(crate) fn up(flags: &[&str]) -> Self {
        let home = Home::new();
        let (server, url) = Background::serve(&home, &[&["up"], flags].concat(), &[]);
        Self { home, url, server }
    }

    /// A server alone, with further flags.
    #[track_caller]
    pub(crate) fn server(flags: &[&str]) -> Self {
        let home = Home::new();
        let (server, url) = Background::serve(&home, &[&["server"], flags].concat(), &[]);
        Self { home, url, server }
    }

    /// Starts an executor of this server.
    #[track_caller]
    pub(crate) fn executor(&self, name: &str, flags: &[&str]) -> Background {
        let work = self.home.path().join(format!("work-{name}"));
        let mut command = self.executr(&["executor", "--name", name, "--work-dir", work.to_str().unwrap()]);
        Background::start(&self.home, name, command.args(flags))
    }

    /// The server again after it has ended, with the same data, port and flags.
    #[track_caller]
    pub(crate) fn restart_server(&mut self, flags: &[&str]) {
        assert!(self.start_server(flags, &[]), "it ended: {}", self.server.output());
    }

    /// The same with further variables, one of which may be its death before it ever answers: then false.
    #[track_caller]
    pub(crate) fn start_server(&mut self, flags: &[&str], environment: &[(&str, &str)]) -> bool {
        let port = http::port_of(&self.url).to_string();
        let mut command = self.home.executr(&["server", "--port", &port]);
        command.args(flags).envs(environment.iter().copied());
        self.server = Background::start(&self.home, "server", &mut command);
        eventually("the server answers or ends", || {
            if self.server.has_ended() {
                return Some(false);
            }
            http::try_get(&self.url, "/health").filter(|answer| answer.status == 200).map(|_| true)
        })
    }

    /// `executr` with these arguments, talking to this server.
    pub(crate) fn executr(&self, arguments: &[&str]) -> Command {
        let mut command = self.home.executr(arguments);
        command.env("EXECUTR_SERVER_URL", &self.url);
        command
    }

    /// Runs `executr` to its end.
    pub(crate) fn output(&self, arguments: &[&str]) -> Output {
        self.executr(arguments).output().unwrap()
    }

    /// Submits a job and returns its id.
    #[track_caller]
    pub(crate) fn submit(&self, arguments: &[&str]) -> String {
        succeed(&mut self.executr(&[&["submit"], arguments].concat())).trim().to_owned()
    }

    /// The job as the API shows it.
    #[track_caller]
    pub(crate) fn job(&self, id: &str) -> Value {
        let answer = http::get(&self.url, &format!("/jobs/{id}"));
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    }

    /// Waits until the job's status is one of these and returns the job.
    #[track_caller]
    pub(crate) fn wait_status(&self, id: &str, statuses: &[&str]) -> Value {
        eventually(&format!("job {id} becomes {statuses:?}"), || {
            // The server may be on its way back.
            let answer = http::try_get(&self.url, &format!("/jobs/{id}"))?;
            let job = (answer.status == 200).then(|| answer.json())?;
            statuses.contains(&job["status"].as_str().unwrap()).then_some(job)
        })
    }

    /// Waits until the job is final and returns it.
    #[track_caller]
    pub(crate) fn wait_final(&self, id: &str) -> Value {
        self.wait_status(id, &["completed", "failed", "cancelled"])
    }
}

/// Waits until the file is there with a whole line in it and returns that line.
#[track_caller]
pub(crate) fn line_in(path: &Path) -> String {
    eventually(&format!("a line in {}", path.display()), || {
        std::fs::read_to_string(path).ok().filter(|text| text.ends_with('\n')).map(|text| text.trim().to_owned())
    })
}

/// Whether a process is there (zombies aside).
pub(crate) fn is_alive(process: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"));
    stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X'])))
}

/// Starts a command whose output is read later.
pub(crate) fn spawn(command: &mut Command) -> std::process::Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Sends a signal to a child.
pub(crate) fn signal(child: &std::process::Child, signal: rustix::process::Signal) {
    let process = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    rustix::process::kill_process(process, signal).unwrap();
}
