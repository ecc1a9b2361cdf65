//! An agent that serves, a directory for its tasks, and short ways to say what a task is.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use executr_agent_protocol::driver::{
    Agent, AgentError, AgentOptions, AgentTask, Dial, Ended, Event, Exit, PeakMemory, StartFailed, StartTask, Stream,
    Usage,
};
use tempfile::TempDir;

pub(crate) use crate::waiting::{bytes_of, lives, until, within};

pub(crate) const TOKEN: &str = "0123456789abcdef";

/// An agent and where its tasks work.
pub(crate) struct Rig {
    pub(crate) place: TempDir,
    pub(crate) process: Child,
}

/// All that was seen of a task.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) pid: u32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) ended: Ended,
}

pub(crate) fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_executr-agent"))
}

impl Rig {
    /// One on a Unix socket that stays a second without a caller.
    pub(crate) async fn new() -> Self {
        Self::with(program(), &["--patience", "1"]).await
    }

    /// The same, started by `command`, with more arguments.
    pub(crate) async fn with(mut command: Command, more: &[&str]) -> Self {
        let place = tempfile::tempdir().unwrap();
        command.args(["serve", "--socket"]).arg(place.path().join("socket")).args(more).stdin(Stdio::null());
        let rig = Self { process: command.spawn().unwrap(), place };
        until("it listens", || rig.socket().exists()).await;
        rig
    }

    /// One on TCP, and its address.
    pub(crate) fn tcp() -> (Self, SocketAddr) {
        let place = tempfile::tempdir().unwrap();
        let token = place.path().join("token");
        std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
        let mut command = program();
        command.args(["serve", "--tcp", "0", "--patience", "1", "--token-file"]).arg(token);
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (Self { place, process }, line.trim().parse().unwrap())
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.place.path().join("socket")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    pub(crate) async fn agent(&self) -> Agent {
        self.patient(Duration::from_secs(20)).await
    }

    pub(crate) async fn patient(&self, patience: Duration) -> Agent {
        let dial = executr_agent_protocol::driver::UnixDial(self.socket());
        connect(Arc::new(dial), patience).await.unwrap()
    }

    /// A program with arguments, in the rig's directory, with the usual PATH.
    pub(crate) fn argv<A: AsRef<OsStr>>(&self, argv: &[A]) -> StartTask {
        use std::os::unix::ffi::OsStrExt;
        StartTask {
            argv: argv.iter().map(|argument| Bytes::copy_from_slice(argument.as_ref().as_bytes())).collect(),
            env: vec![Bytes::from_static(b"PATH=/usr/bin:/bin")],
            directory: bytes_of(self.place.path()),
            ..Default::default()
        }
    }

    /// A line of shell.
    pub(crate) fn sh(&self, script: &str) -> StartTask {
        self.argv(&["/bin/sh", "-c", script])
    }

    /// Waits until the agent has ended by itself.
    pub(crate) async fn ended(mut self) {
        until("the agent ends when nobody calls", || self.process.try_wait().unwrap().is_some()).await;
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // One that has ended is no child any more.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) async fn connect(dial: Arc<dyn Dial>, patience: Duration) -> Result<Agent, AgentError> {
    within(Agent::connect(dial, AgentOptions { patience, ..AgentOptions::default() })).await
}

pub(crate) async fn run(agent: &Agent, task: StartTask) -> Seen {
    see(within(agent.start(task)).await.unwrap()).await.unwrap()
}

/// Follows a task to its end and checks what holds for all.
pub(crate) async fn see(mut task: AgentTask) -> Result<Seen, StartFailed> {
    let usage = Usage { peak_memory_of: PeakMemory::LargestProcess, ..Usage::default() };
    let ended = Ended { exit: Exit::Code(-1), usage, oom_killed: false, removal_failure: None };
    let mut seen = Seen { pid: 0, stdout: Vec::new(), stderr: Vec::new(), ended };
    loop {
        match within(task.next()).await.unwrap().unwrap() {
            Event::Started { pid } => {
                assert_eq!(seen.pid, 0, "started once");
                seen.pid = pid;
            }
            Event::Output { stream, offset, data } => {
                assert_ne!(seen.pid, 0, "output before the start");
                let to = match stream {
                    Stream::Stdout => &mut seen.stdout,
                    Stream::Stderr => &mut seen.stderr,
                };
                assert_eq!(offset, to.len() as u64, "a gap in {stream:?}");
                assert!(!data.is_empty());
                to.extend_from_slice(&data);
            }
            Event::InputTaken { .. } => {}
            Event::Ended(ended) => {
                assert_eq!(task.next().await.unwrap(), None);
                seen.ended = ended;
                return Ok(seen);
            }
            Event::StartFailed(failed) => {
                assert_eq!(task.next().await.unwrap(), None);
                return Err(failed);
            }
        }
    }
}

/// Waits for the task to have written `text` to stdout, so that it is known to be that far.
pub(crate) async fn until_said(task: &mut AgentTask, text: &str) -> String {
    let mut said = Vec::new();
    loop {
        match within(task.next()).await.unwrap().unwrap() {
            Event::Output { stream: Stream::Stdout, data, .. } => said.extend_from_slice(&data),
            Event::Started { .. } | Event::InputTaken { .. } => {}
            other => panic!("{other:?} before {text:?}; said {:?}", String::from_utf8_lossy(&said)),
        }
        let so_far = String::from_utf8_lossy(&said);
        if so_far.contains(text) {
            return so_far.into_owned();
        }
    }
}
