//! The agent as the first process of a container.
//!
//! It listens on a Unix socket in a directory that its driver has mounted, and starts a keeper (this same program)
//! for each driver that calls, so that any number of jobs can run in the container, each with a keeper of its own. A
//! keeper can do what a step must not, so only calls from outside the container are answered. It waits for every process that loses its parent, ends what a dead keeper left, passes on the
//! signals an engine sends, and when nobody has called for a while it exits, and the container with it.

use std::collections::HashSet;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::keeper::Fault;
use crate::processes;
use crate::signals;

/// Signals an engine ends a container with, and those a person may send it.
const PASSED_ON: [i32; 6] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2];

/// Those after which nobody is let in any more.
const LAST: [i32; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];

/// How long nobody is let in after somebody couldn't be.
const PAUSE: Duration = Duration::from_millis(50);

/// How long it stays without a driver, unless told otherwise: long enough for one that has just started the container.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Serves drivers that connect to `socket` until none has been there for `patience`. To be called first thing in a
/// process, before any thread is started: it takes over signals and children of the process.
///
/// # Errors
/// When the system makes it impossible to begin or to go on.
pub fn run(socket: &Path, patience: Duration) -> Result<(), Fault> {
    let system = Fault::system;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(system("this process can't become a subreaper"))?;
    signals::reset();
    let signals = signals::descriptor(&[&[libc::SIGCHLD], &PASSED_ON[..]].concat())
        .map_err(system("no signalfd could be made"))?;
    let listener = listen(socket)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL))
        .map_err(system("the socket for drivers can't be made"))?;
    let alone_since = Some(Instant::now());
    Init { listener: Some(listener), signals, keepers: HashSet::new(), alone_since, patience }.serve()
}

fn listen(socket: &Path) -> std::io::Result<UnixListener> {
    // Its name is there when calls are answered, not before.
    let unready = socket.with_extension("new");
    let listener = UnixListener::bind(&unready)?;
    // Whoever may enter its directory may call: that is the driver's user, who needn't be the one in here.
    std::fs::set_permissions(&unready, std::fs::Permissions::from_mode(0o666))?;
    std::fs::rename(&unready, socket)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

struct Init {
    /// `None` once it is to end.
    listener: Option<UnixListener>,
    signals: OwnedFd,
    keepers: HashSet<i32>,
    /// Since when there is no keeper.
    alone_since: Option<Instant>,
    patience: Duration,
}

impl Init {
    fn serve(mut self) -> Result<(), Fault> {
        loop {
            let left = self.alone_since.map(|since| self.patience.saturating_sub(since.elapsed()));
            if self.keepers.is_empty() && (self.listener.is_none() || left == Some(Duration::ZERO)) {
                return Ok(());
            }
            self.wait(left)?;
        }
    }

    /// Waits for something to happen, and deals with it.
    fn wait(&mut self, most: Option<Duration>) -> Result<(), Fault> {
        let timeout = most.map(|most| Timespec {
            // A little more, so that it is over when this is.
            tv_sec: most.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: i64::from(most.subsec_nanos()).min(998_999_999) + 1_000_000,
        });
        let (signalled, called) = {
            let signals = PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN);
            let calls =
                self.listener.as_ref().map(|listener| PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN));
            let mut fds: Vec<_> = [signals].into_iter().chain(calls).collect();
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(Fault::system("nothing can be waited for")(error)),
            }
            (!fds[0].revents().is_empty(), fds.get(1).is_some_and(|call| !call.revents().is_empty()))
        };
        if signalled {
            for signal in signals::take(&self.signals) {
                self.signalled(signal);
            }
        }
        if called {
            self.admit();
        }
        Ok(())
    }

    fn signalled(&mut self, signal: signals::Signal) {
        if signal.number == libc::SIGCHLD {
            self.reap();
            return;
        }
        // As the first process of a container: whoever is in there decides nothing for the others.
        if std::process::id() == 1 && signal.sender != 0 {
            return;
        }
        // Keepers block it: what it reaches is what they run.
        for process in processes::descendants() {
            processes::signal(process, signal.number);
        }
        if LAST.contains(&signal.number) {
            self.listener = None;
        }
    }

    /// Lets in whoever called.
    fn admit(&mut self) {
        let Some(listener) = &self.listener else { return };
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                // A caller who has gone again, or too many open files: asked again at once it would be the same.
                Err(_) => return std::thread::sleep(PAUSE),
            };
            if !is_from_outside(&stream) {
                continue;
            }
            if let Some(keeper) = start_keeper(stream) {
                self.keepers.insert(keeper);
                self.alone_since = None;
            }
        }
    }

    /// Waits for all that have ended, and ends what a keeper left that didn't do that itself.
    fn reap(&mut self) {
        let mut lost = false;
        while let Some(process) = ended_child() {
            self.keepers.remove(&process);
            lost = true;
        }
        if !lost {
            return;
        }
        for child in processes::children() {
            if !self.keepers.contains(&child) {
                processes::signal(child, libc::SIGKILL);
            }
        }
        if self.keepers.is_empty() && self.alone_since.is_none() {
            self.alone_since = Some(Instant::now());
        }
    }
}

/// Whether the caller isn't one of the processes that this one is the first of. Where it is the first of none, nothing
/// tells them apart.
fn is_from_outside(caller: &UnixStream) -> bool {
    if std::process::id() != 1 {
        return true;
    }
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut size = libc::socklen_t::try_from(size_of_val(&peer)).unwrap_or(0);
    // SAFETY: both pointers are to values that live until the call returns, and `size` is the first one's.
    let answer = unsafe {
        libc::getsockopt(caller.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut peer).cast(), &raw mut size)
    };
    // A process that can't be seen from here has no number here.
    answer == 0 && peer.pid == 0
}

/// Another of this program, which is a keeper; `None` when there can be no more processes.
fn start_keeper(driver: UnixStream) -> Option<i32> {
    driver.set_nonblocking(false).ok()?;
    let started = Command::new("/proc/self/exe")
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(driver)))
        .stdout(Stdio::null())
        .spawn();
    // Not waited for through this value: `reap` does, for all.
    started.ok().map(|keeper| keeper.id().cast_signed())
}

/// The next child that has ended, if any.
fn ended_child() -> Option<i32> {
    loop {
        // SAFETY: no status is asked for.
        match unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } {
            0 => return None,
            -1 if std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted => {}
            -1 => return None,
            process => return Some(process),
        }
    }
}
