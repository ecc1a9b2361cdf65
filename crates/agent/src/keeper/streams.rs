//! Standard input, output and error of a task, and this side of them: pipes, or one terminal.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use executr_agent_protocol::v1::{self, StartPhase, StartTask, start_task};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::input::Input;
use crate::identity::Identity;
use crate::spawn::SpawnError;

/// Both sides.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) input: Input,
    pub(super) outputs: Vec<Output>,
    /// The ends the process writes to: for both outputs, or the terminal that is everything.
    pub(super) writers: Vec<OwnedFd>,
    /// The end it reads from, where that is a pipe.
    reader: Option<OwnedFd>,
    pub(super) is_terminal: bool,
}

/// The reading end of one output stream.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) stream: v1::Stream,
    pub(super) end: OwnedFd,
    /// Bytes read so far.
    pub(super) offset: u64,
    pub(super) large: bool,
}

impl Output {
    fn new(stream: v1::Stream, end: OwnedFd) -> Self {
        Self { stream, end, offset: 0, large: false }
    }
}

impl Streams {
    pub(super) fn open(task: &StartTask, identity: Option<&Identity>) -> Result<Self, SpawnError> {
        let (reader, input) = match &task.input {
            Some(start_task::Input::Terminal(wanted)) => return Self::terminal(wanted, identity).map_err(no_terminal),
            Some(start_task::Input::Pipe(_)) => {
                let (reader, writer) = pipe().map_err(no_pipe)?;
                // The process's end waits, as programs expect; ours doesn't.
                rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK).map_err(no_pipe)?;
                (Some(reader), Input::pipe(writer))
            }
            None => (None, Input::none()),
        };
        let (stdout, stdout_writer) = pipe().map_err(no_pipe)?;
        let (stderr, stderr_writer) = pipe().map_err(no_pipe)?;
        let outputs = vec![Output::new(v1::Stream::Stdout, stdout), Output::new(v1::Stream::Stderr, stderr)];
        Ok(Self { input, outputs, writers: vec![stdout_writer, stderr_writer], reader, is_terminal: false })
    }

    fn terminal(wanted: &v1::Terminal, identity: Option<&Identity>) -> Result<Self, Errno> {
        // A keeper leads a session, and whatever terminal it opened would become its own.
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let theirs = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        if let Some(identity) = identity {
            let owner = Some(rustix::fs::Uid::from_raw(identity.uid));
            rustix::fs::fchown(&theirs, owner, None)?;
        }
        resize(master.as_fd(), wanted.rows, wanted.columns)?;
        rustix::fs::fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK)?;
        let input = Input::terminal(rustix::io::fcntl_dupfd_cloexec(&master, 3)?);
        Ok(Self {
            input,
            outputs: vec![Output::new(v1::Stream::Stdout, master)],
            writers: vec![theirs],
            reader: None,
            is_terminal: true,
        })
    }

    /// What the process gets as standard input, output and error; nothing where there is nothing to read.
    pub(super) fn theirs(&self) -> [Option<BorrowedFd<'_>>; 3] {
        let stdout = self.writers.first().map(AsFd::as_fd);
        let stderr = self.writers.get(1).map_or(stdout, |writer| Some(writer.as_fd()));
        let stdin = if self.is_terminal { stdout } else { self.reader.as_ref().map(AsFd::as_fd) };
        [stdin, stdout, stderr]
    }
}

/// Gives a terminal another size. Zero is one of no known size.
pub(super) fn resize(master: BorrowedFd<'_>, rows: u32, columns: u32) -> Result<(), Errno> {
    let most = |cells: u32| u16::try_from(cells).unwrap_or(u16::MAX);
    let size = Winsize { ws_row: most(rows), ws_col: most(columns), ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size)
}

/// The environment of a task that has a terminal which is told what it is; `None` when it is told nothing.
pub(super) fn with_term(task: &StartTask) -> Option<StartTask> {
    let Some(start_task::Input::Terminal(terminal)) = &task.input else { return None };
    if terminal.term.is_empty() {
        return None;
    }
    let mut env: Vec<_> = task.env.iter().filter(|entry| !entry.starts_with(b"TERM=")).cloned().collect();
    env.push([b"TERM=", &terminal.term[..]].concat().into());
    Some(StartTask { env, ..task.clone() })
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    pipe_with(PipeFlags::CLOEXEC)
}

fn no_pipe(errno: Errno) -> SpawnError {
    failed(errno, format!("no pipe could be made: {errno}; raise the limit on open files"))
}

fn no_terminal(errno: Errno) -> SpawnError {
    let advice = match errno {
        Errno::NOENT | Errno::NODEV | Errno::NXIO => {
            "mount devpts at /dev/pts, with /dev/ptmx, in the place it is to run"
        }
        Errno::NOSPC => "too many terminals are open; raise kernel.pty.max, or close some",
        _ => "see the limits on open files, and whether /dev/ptmx may be opened there",
    };
    failed(errno, format!("no terminal could be made: {errno}; {advice}"))
}

fn failed(errno: Errno, message: String) -> SpawnError {
    let failure = v1::Failure { errno: errno.raw_os_error(), message, ..Default::default() };
    SpawnError { phase: StartPhase::Pipes, failure }
}
