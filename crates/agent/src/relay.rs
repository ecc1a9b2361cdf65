//! The agent at the end of two pipes: a keeper needs a socket, so it gets one, and what comes on standard input goes there,
//! what comes from there to standard output. So an agent can be driven through whatever passes bytes on: `ssh`, a
//! container engine's `exec`, a pipe of a shell.
//!
//! When standard input ends, or nobody reads standard output, the keeper ends what it runs. What a keeper leaves that was
//! killed is ended here.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};

use crate::attach;
use crate::keeper::Fault;
use crate::processes;

/// Bytes taken at once.
const READ: usize = 64 * 1024;

/// Bytes written at once: as many as a pipe that can be written has room for, so that no write waits.
const WRITE: usize = 4096;

/// Whether standard input is a socket, so that a keeper can serve it by itself.
#[must_use]
pub fn has_socket() -> bool {
    let found = rustix::fs::fstat(rustix::stdio::stdin());
    found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Socket)
}

/// Serves the driver at the other end of standard input and output until it is gone. To be called first thing in a process.
///
/// # Errors
/// When the system makes it impossible to begin or to go on.
pub fn run() -> Result<(), Fault> {
    let system = Fault::system;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(system("this process can't become a subreaper"))?;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(system("no socket could be made"))?;
    let keeper = Command::new("/proc/self/exe").env_clear().stdin(Stdio::from(theirs)).stdout(Stdio::null()).spawn();
    let mut keeper = keeper
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL))
        .map_err(system("a keeper can't be started"))?;
    let relayed = pass_on(ours.as_fd());
    drop(ours);
    // It ends what it runs, and exits.
    drop(keeper.wait());
    end_the_rest();
    relayed
}

/// Passes bytes on between standard input and output and the agent that listens on `socket`.
///
/// # Errors
/// When it isn't there, or the system makes it impossible to go on.
pub fn attach(socket: &Path) -> Result<(), Fault> {
    let stream = attach::connect(socket).map_err(|source| Fault::Unreachable { socket: socket.to_owned(), source })?;
    pass_on(stream.as_fd())
}

/// One direction.
struct Way {
    buffer: Vec<u8>,
    written: usize,
    /// Nothing more comes.
    ended: bool,
}

impl Way {
    fn new() -> Self {
        Self { buffer: Vec::with_capacity(READ), written: 0, ended: false }
    }

    fn is_empty(&self) -> bool {
        self.written == self.buffer.len()
    }

    /// What is to be waited for at either end.
    fn wants(&self) -> (PollFlags, PollFlags) {
        let read = if self.is_empty() && !self.ended { PollFlags::IN } else { PollFlags::empty() };
        let write = if self.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        (read, write)
    }

    fn read(&mut self, from: BorrowedFd<'_>) -> Result<(), Errno> {
        self.buffer.clear();
        self.written = 0;
        match rustix::io::read(from, rustix::buffer::spare_capacity(&mut self.buffer)) {
            Ok(0) | Err(Errno::CONNRESET) => self.ended = true,
            Ok(_) | Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Whether there is still somebody to write to.
    fn write(&mut self, to: BorrowedFd<'_>) -> Result<bool, Errno> {
        let end = self.buffer.len().min(self.written + WRITE);
        match rustix::io::write(to, &self.buffer[self.written..end]) {
            Ok(written) => self.written += written,
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(Errno::PIPE | Errno::CONNRESET) => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }
}

/// Passes bytes on between standard input and output and `keeper`, until nothing more comes from there or nobody reads standard
/// output.
pub(crate) fn pass_on(keeper: BorrowedFd<'_>) -> Result<(), Fault> {
    let failed = |errno| Fault::system("the driver's stream can't be passed on")(errno);
    let (stdin, stdout) = (rustix::stdio::stdin(), rustix::stdio::stdout());
    let (mut inward, mut outward) = (Way::new(), Way::new());
    let mut hung_up = false;
    while !(outward.ended && outward.is_empty()) {
        if inward.ended && inward.is_empty() && !hung_up {
            hung_up = true;
            // An error means that it is gone already.
            let _ = shutdown(keeper, Shutdown::Write);
        }
        let ((read, write), (hear, say)) = (inward.wants(), outward.wants());
        // Left out where nothing is asked for: poll reports a closed end whether asked or not.
        let asked = [(stdin, read), (keeper, write | hear), (stdout, say)];
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(asked.len());
        fds.extend(
            asked
                .iter()
                .filter(|(_, flags)| !flags.is_empty())
                .map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)),
        );
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(failed(error)),
        }
        let mut found = fds.iter().map(PollFd::revents);
        let mut next = |flags: PollFlags| if flags.is_empty() { flags } else { found.next().unwrap_or(flags) };
        let (from_driver, at_keeper, to_driver) = (next(read), next(write | hear), next(say));
        let over = PollFlags::HUP | PollFlags::ERR;
        if from_driver.intersects(PollFlags::IN | over) {
            inward.read(stdin).map_err(failed)?;
        }
        if !write.is_empty() && at_keeper.intersects(PollFlags::OUT | over) && !inward.write(keeper).map_err(failed)? {
            inward = Way { ended: true, ..Way::new() };
        }
        if !hear.is_empty() && at_keeper.intersects(PollFlags::IN | over) {
            outward.read(keeper).map_err(failed)?;
        }
        if to_driver.intersects(PollFlags::OUT | over) && !outward.write(stdout).map_err(failed)? {
            // Nobody listens: what runs has nobody it runs for.
            return Ok(());
        }
    }
    Ok(())
}

/// Ends what a keeper left that couldn't do that itself, and waits until nothing is left.
fn end_the_rest() {
    loop {
        for process in processes::descendants() {
            processes::signal(process, libc::SIGKILL);
        }
        // SAFETY: no status is asked for.
        let ended = unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) };
        if ended == -1 && std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
            return;
        }
    }
}
