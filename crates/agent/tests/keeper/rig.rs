//! A keeper, a directory for its tasks, and short ways to say what a task is.

use std::path::PathBuf;

use bytes::Bytes;
use executr_agent_protocol::driver::{
    Cgroups, Ended, Event, Exit, Keeper, KeeperOptions, StartFailed, StartTask, Stream, Task,
};
use tempfile::TempDir;

pub(crate) use crate::waiting::{bytes_of, lives, until, within};

/// A keeper and where its tasks work.
pub(crate) struct Rig {
    pub(crate) keeper: Keeper,
    pub(crate) place: TempDir,
}

/// All that was seen of a task.
pub(crate) struct Seen {
    pub(crate) pid: u32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) ended: Ended,
}

pub(crate) fn options(cgroups: Cgroups) -> KeeperOptions {
    KeeperOptions { program: env!("CARGO_BIN_EXE_executr-agent").into(), args: vec!["keeper".into()], cgroups }
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with(Cgroups::WhereWritable).await
    }

    pub(crate) async fn with(cgroups: Cgroups) -> Self {
        Self { keeper: Keeper::spawn(options(cgroups)).await.unwrap(), place: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// A program with arguments, in the rig's directory, with the usual PATH.
    pub(crate) fn argv(&self, argv: &[&str]) -> StartTask {
        StartTask {
            argv: argv.iter().map(|argument| Bytes::copy_from_slice(argument.as_bytes())).collect(),
            env: vec![Bytes::from_static(b"PATH=/usr/bin:/bin")],
            directory: bytes_of(self.place.path()),
            ..Default::default()
        }
    }

    /// A line of shell.
    pub(crate) fn sh(&self, script: &str) -> StartTask {
        self.argv(&["/bin/sh", "-c", script])
    }

    pub(crate) async fn run(&mut self, task: StartTask) -> Seen {
        let task = self.keeper.start(task).await.unwrap();
        see(task).await.unwrap()
    }

    pub(crate) async fn refused(&mut self, task: StartTask) -> StartFailed {
        let task = self.keeper.start(task).await.unwrap();
        see(task).await.err().unwrap()
    }
}

/// Follows a task to its end and checks what holds for all.
pub(crate) async fn see(mut task: Task<'_>) -> Result<Seen, StartFailed> {
    let mut seen = Seen {
        pid: 0,
        stdout: Vec::new(),
        stderr: Vec::new(),
        ended: Ended {
            exit: Exit::Code(-1),
            usage: executr_agent_protocol::driver::Usage::default(),
            oom_killed: false,
            removal_failure: None,
        },
    };
    loop {
        match within(task.next()).await.unwrap().unwrap() {
            Event::Started { pid } => seen.pid = pid,
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
pub(crate) async fn until_said(task: &mut Task<'_>, text: &str) -> Vec<u8> {
    let mut said = Vec::new();
    loop {
        match within(task.next()).await.unwrap().unwrap() {
            Event::Output { stream: Stream::Stdout, data, .. } => said.extend_from_slice(&data),
            Event::Started { .. } => {}
            other => panic!("{other:?} before {text:?}; said {:?}", String::from_utf8_lossy(&said)),
        }
        if String::from_utf8_lossy(&said).contains(text) {
            return said;
        }
    }
}
