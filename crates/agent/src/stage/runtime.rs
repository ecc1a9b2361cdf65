//! The runtime, and the end of all it started.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::cgroup::TaskGroup;
use crate::keeper::Fault;
use crate::{processes, signals};

/// How long a runtime whose container was killed may take to say so before it is killed itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often what a runtime is just starting is looked for, so that it can be killed.
const LOOK: Duration = Duration::from_millis(2);

/// Runs the program until it ends, or standard input does; the code it exited with.
pub(super) fn run(command: &[OsString], group: Option<TaskGroup>) -> Result<u8, Fault> {
    let signals = signals::descriptor(&[libc::SIGCHLD]).map_err(Fault::system("no signalfd could be made"))?;
    let mut runtime = start(command, group.as_ref())?;
    let mut dying: Option<Instant> = None;
    let code = loop {
        if let Some(status) = runtime.try_wait().map_err(failed("wait for the runtime"))? {
            break status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(1);
        }
        let hung_up = wait(&signals, dying.is_some())?;
        if hung_up || dying.is_some() {
            kill(&mut runtime, *dying.get_or_insert_with(Instant::now));
        }
    };
    end_rest();
    drop(group);
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

fn start(command: &[OsString], group: Option<&TaskGroup>) -> Result<Child, Fault> {
    let [program, arguments @ ..] = command else { return Err(Fault::Protocol("there is no program".to_owned())) };
    let joins = group.map(TaskGroup::joins).transpose().map_err(|error| failed("bound it")(io::Error::other(error)))?;
    let mut runtime = Command::new(program);
    runtime.args(arguments).stdin(Stdio::null());
    if let Some(joins) = joins {
        let join =
            move || joins.iter().try_for_each(|group| rustix::io::write(group, b"0").map(drop).map_err(Into::into));
        // SAFETY: it writes to open descriptors, and does nothing else.
        unsafe { runtime.pre_exec(join) };
    }
    runtime.spawn().map_err(|source| Fault::Exec { program: program.to_string_lossy().into_owned(), source })
}

/// Waits for a child's end or that of standard input; whether it was the latter.
fn wait(signals: &OwnedFd, is_dying: bool) -> Result<bool, Fault> {
    let input = std::io::stdin();
    let mut fds = vec![PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
    if !is_dying {
        fds.push(PollFd::from_borrowed_fd(input.as_fd(), PollFlags::IN));
    }
    let pause = is_dying.then_some(Timespec { tv_sec: 0, tv_nsec: i64::from(LOOK.subsec_nanos()) });
    match poll(&mut fds, pause.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(Fault::system("nothing can be waited for")(error)),
    }
    let (signalled, told) = (!fds[0].revents().is_empty(), fds.get(1).is_some_and(|input| !input.revents().is_empty()));
    drop(fds);
    if signalled {
        signals::take(signals).for_each(drop);
    }
    // Whatever was written there says nothing.
    Ok(told && rustix::io::read(input.as_fd(), &mut [0; 64]) == Ok(0))
}

/// Ends what the runtime has started, above all the first process of the container, with which all others go. The runtime
/// itself then clears up and ends; one that doesn't is killed.
fn kill(runtime: &mut Child, since: Instant) {
    if since.elapsed() > PATIENCE {
        // It may have ended by now.
        let _ = runtime.kill();
        return;
    }
    let own = runtime.id().cast_signed();
    for process in processes::descendants() {
        if process != own {
            processes::signal(process, libc::SIGKILL);
        }
    }
}

/// Whatever lost its parent has this one now; it ends before its directories go.
fn end_rest() {
    loop {
        for process in processes::children() {
            processes::signal(process, libc::SIGKILL);
        }
        // SAFETY: no status is asked for.
        if unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } < 0
            && io::Error::last_os_error().raw_os_error() != Some(libc::EINTR)
        {
            return;
        }
    }
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> Fault {
    move |source| Fault::Stage { what, source }
}
