//! The one task there is at a time: its pipes, its children's ends, what it used.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use executr_agent_protocol::keeper::v1::{self as wire, from_keeper};
use executr_agent_protocol::v1::{self, StartPhase, StartTask, task_result};
use prost::bytes::BytesMut;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::fcntl_setpipe_size;
use rustix::time::Timespec;

use super::Fault;
use super::control::Control;
use super::ending::Ending;
use super::input::Input;
use super::streams::{self, Output, Streams};
use crate::cgroup::{Limiter, TaskGroup};
use crate::directory;
use crate::identity::{self, Identity};
use crate::spare::Spare;
use crate::spawn::{SpawnError, Spawner};

/// Bytes taken from a pipe at once.
const READ: usize = 64 * 1024;

/// A task that has written this much gets larger pipes: fewer switches between it and us.
const CHATTY: u64 = 256 * 1024;

/// Bytes a larger pipe holds; what an unprivileged user may ask for, by default.
const LARGE_PIPE: usize = 1024 * 1024;

/// A running task.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) id: u64,
    /// Process id of its first process.
    pub(super) main: i32,
    /// How the first process ended, as `wait4` tells.
    main_status: Option<i32>,
    /// `wait4` said that no child is left. Nothing of the tree can come back.
    pub(super) alone: bool,
    pub(super) ending: Ending,
    pub(super) group: Option<TaskGroup>,
    pub(super) input: Input,
    outputs: Vec<Output>,
    /// The writing ends, kept open to the end: so the pipes don't report their end when the first process
    /// exits, and one wake, for the exit, is all a silent job costs.
    writers: Vec<OwnedFd>,
    is_terminal: bool,
    usage: v1::Usage,
    /// What to remove at the end.
    directory: Option<PathBuf>,
}

impl Task {
    /// Starts a task. On failure nothing of it is left, as far as it was asked to be removed.
    pub(super) fn start(
        id: u64,
        request: &StartTask,
        spawner: &mut Spawner,
        limiter: &Limiter,
        spare: &mut Spare,
    ) -> Result<Self, Box<v1::TaskResult>> {
        let directory = Path::new(std::ffi::OsStr::from_bytes(&request.directory));
        let failed = |error: SpawnError, made: bool| {
            let failed = v1::StartFailed { phase: error.phase.into(), failure: Some(error.failure) };
            Box::new(v1::TaskResult {
                outcome: Some(task_result::Outcome::StartFailed(failed)),
                removal_failure: (made && request.remove_directory)
                    .then(|| directory::remove(directory).err().map(|error| (&error).into()))
                    .flatten(),
                ..Default::default()
            })
        };
        if request.create_directory {
            spare.create(directory).map_err(|error| {
                // What stands in its place isn't ours to remove.
                failed(SpawnError { phase: StartPhase::Directory, failure: (&error).into() }, false)
            })?;
        }
        Self::given(directory, request)
            .and_then(|identity| Self::start_in(id, directory, request, spawner, limiter, identity.as_ref()))
            .map_err(|error| failed(error, true))
    }

    /// Who runs it; the directory is that user's from here on, where it is to be.
    fn given(directory: &Path, request: &StartTask) -> Result<Option<Identity>, SpawnError> {
        if request.user.is_empty() {
            return Ok(None);
        }
        let identity = Identity::find(&request.user)
            .map_err(|error| SpawnError { phase: StartPhase::User, failure: (&error).into() })?;
        let given = Path::new(std::ffi::OsStr::from_bytes(&request.give));
        let given = [directory, given].into_iter().zip([request.create_directory, !request.give.is_empty()]);
        for (directory, _) in given.filter(|(_, is_given)| *is_given) {
            identity::give(directory, &identity)
                .map_err(|error| SpawnError { phase: StartPhase::Directory, failure: (&error).into() })?;
        }
        Ok(Some(identity))
    }

    fn start_in(
        id: u64,
        directory: &Path,
        request: &StartTask,
        spawner: &mut Spawner,
        limiter: &Limiter,
        identity: Option<&Identity>,
    ) -> Result<Self, SpawnError> {
        for file in &request.files {
            let path = directory.join(std::ffi::OsStr::from_bytes(&file.path));
            directory::write_file(&path, &file.content, file.mode)
                .map_err(|error| SpawnError { phase: StartPhase::File, failure: (&error).into() })?;
            if let Some(identity) = identity {
                identity::give(&path, identity)
                    .map_err(|error| SpawnError { phase: StartPhase::File, failure: (&error).into() })?;
            }
        }
        let unlimited = v1::Limits::default();
        let limits =
            |error: crate::cgroup::LimitError| SpawnError { phase: StartPhase::Limits, failure: (&error).into() };
        let group = limiter.group(request.limits.as_ref().unwrap_or(&unlimited)).map_err(limits)?;
        let joins = match &group {
            Some(group) => group.joins().map_err(limits)?,
            None => Vec::new(),
        };
        let streams = Streams::open(request, identity)?;
        let with_term = streams::with_term(request);
        let request = with_term.as_ref().unwrap_or(request);
        let main = spawner.spawn(request, streams.theirs(), streams.is_terminal, &joins, identity)?;
        let Streams { input, outputs, writers, is_terminal, .. } = streams;
        Ok(Self {
            id,
            main,
            main_status: None,
            alone: false,
            ending: Ending::Not,
            group,
            input,
            outputs,
            writers,
            is_terminal,
            usage: v1::Usage::default(),
            directory: request.remove_directory.then(|| directory.to_owned()),
        })
    }

    /// The reading ends, to be polled.
    pub(super) fn output_fds(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [0, 1].map(|number| self.outputs.get(number).map(|output| output.end.as_fd()))
    }

    /// Gives its terminal, if it has one, another size.
    pub(super) fn resize(&self, rows: u32, columns: u32) {
        if let (true, Some(master)) = (self.is_terminal, self.outputs.first()) {
            // One that has gone needs none.
            let _ = streams::resize(master.end.as_fd(), rows, columns);
        }
    }

    /// Whether the first process has been waited for: its number may be anybody's by now.
    pub(super) fn main_is_gone(&self) -> bool {
        self.main_status.is_some()
    }

    /// Waits for all children that have ended, without waiting for those that haven't.
    pub(super) fn reap(&mut self) -> Result<(), Fault> {
        loop {
            let mut status = 0;
            let mut used = MaybeUninit::<libc::rusage>::zeroed();
            // SAFETY: both places are ours and valid.
            let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, used.as_mut_ptr()) };
            match pid {
                0 => return Ok(()),
                -1 => match Errno::from_io_error(&std::io::Error::last_os_error()) {
                    Some(Errno::CHILD) => {
                        self.alone = true;
                        return Ok(());
                    }
                    Some(Errno::INTR) => {}
                    other => {
                        return Err(Fault::system("children can't be waited for")(other.unwrap_or(Errno::INVAL)));
                    }
                },
                pid => {
                    // SAFETY: zeroed at first, filled by the kernel now.
                    self.count(&unsafe { used.assume_init() });
                    if pid == self.main {
                        self.main_status = Some(status);
                    }
                }
            }
        }
    }

    /// Adds what a child used: together with what its own children used that it waited for itself, so that all
    /// that is ever waited for here is the whole tree.
    fn count(&mut self, used: &libc::rusage) {
        let micros = |time: libc::timeval| u64::try_from(time.tv_sec * 1_000_000 + time.tv_usec).unwrap_or(0);
        self.usage.user_us += micros(used.ru_utime);
        self.usage.system_us += micros(used.ru_stime);
        let peak = u64::try_from(used.ru_maxrss).unwrap_or(0) * 1024;
        self.usage.peak_memory_bytes = self.usage.peak_memory_bytes.max(peak);
    }

    /// Reads once from one of the outputs, which should have something.
    pub(super) fn read(&mut self, output: usize, room: &mut BytesMut, control: &mut Control) -> Result<(), Fault> {
        let Some(output) = self.outputs.get_mut(output) else { return Ok(()) };
        room.reserve(READ);
        let read = {
            let spare = &mut room.spare_capacity_mut()[..READ];
            match rustix::io::read(&output.end, spare) {
                Ok((read, _)) => read.len(),
                // The last is a terminal that nobody has open any more.
                Err(Errno::INTR | Errno::AGAIN | Errno::IO) => 0,
                Err(error) => return Err(Fault::system("output can't be read")(error)),
            }
        };
        if read == 0 {
            return Ok(());
        }
        // SAFETY: the kernel has filled that many bytes of the spare capacity.
        unsafe { room.set_len(room.len() + read) };
        let data = room.split().freeze();
        let (stream, offset) = (output.stream.into(), output.offset);
        output.offset += read as u64;
        if output.offset > CHATTY && !output.large && !self.is_terminal {
            output.large = true;
            // Refused where the user has many such pipes; then it goes on with small ones.
            let _ = fcntl_setpipe_size(&output.end, LARGE_PIPE);
        }
        let told = wire::Output { task_id: self.id, output: Some(v1::TaskOutput { stream, offset, data }) };
        Ok(control.queue(from_keeper::Message::Output(told))?)
    }

    /// Reads what is left once nothing writes any more, for as long as the driver takes it; whether that was all.
    pub(super) fn drain(&mut self, room: &mut BytesMut, control: &mut Control) -> Result<bool, Fault> {
        const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
        if self.is_terminal {
            // What was written last may still be on its way through the kernel: only a terminal nobody has open tells its end.
            self.writers.clear();
        }
        loop {
            control.flush_due()?;
            if control.is_full() {
                return Ok(false);
            }
            let mut fds: Vec<_> = self.outputs.iter().map(|output| PollFd::new(&output.end, PollFlags::IN)).collect();
            match poll(&mut fds, Some(&NOW)) {
                Ok(0) => return Ok(true),
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(Fault::system("output can't be polled")(error)),
            }
            let ready: Vec<_> = fds.iter().map(|fd| fd.revents().contains(PollFlags::IN)).collect();
            if !ready.contains(&true) {
                // A terminal that is hung up, and empty.
                return Ok(true);
            }
            for (output, _) in ready.into_iter().enumerate().filter(|(_, ready)| *ready) {
                self.read(output, room, control)?;
            }
        }
    }

    /// Sums up, removes the directory, and says how it ended.
    pub(super) fn finish(mut self, spare: &mut Spare) -> v1::TaskResult {
        self.usage.set_peak_memory_source(v1::PeakMemorySource::LargestProcess);
        let mut oom_killed = false;
        if let Some(group) = self.group.take() {
            if let Some(peak) = group.peak_memory() {
                self.usage.peak_memory_bytes = peak;
                self.usage.set_peak_memory_source(v1::PeakMemorySource::Cgroup);
            }
            oom_killed = group.oom_killed();
        }
        let status = self.main_status.unwrap_or(libc::SIGKILL);
        let outcome = if libc::WIFSIGNALED(status) {
            task_result::Outcome::Signal(libc::WTERMSIG(status))
        } else {
            task_result::Outcome::ExitCode(libc::WEXITSTATUS(status))
        };
        let removal = self.directory.as_deref().map_or(Ok(()), |directory| spare.remove(directory));
        v1::TaskResult {
            outcome: Some(outcome),
            usage: Some(self.usage),
            oom_killed,
            removal_failure: removal.err().map(|error| (&error).into()),
        }
    }
}
