//! What is waited for, and in which order what happened is dealt with.
//!
//! Idle, the keeper stands in one `recv`. With a task it polls four things: ends of children (by a signalfd), the
//! driver, and the two pipes, the latter only while the driver takes what is read. A job without output costs two
//! wakes: its start and its end.

use std::ffi::{OsStr, c_int};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use executr_agent_protocol::PROTOCOL;
use executr_agent_protocol::keeper::v1::{self as wire, from_keeper, to_keeper};
use executr_agent_protocol::v1::{self, StartPhase, task_result};
use prost::bytes::BytesMut;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, FdFlags};
use rustix::time::Timespec;

use super::Fault;
use super::control::{Control, Received};
use super::task::Task;
use crate::cgroup::{Hierarchies, Limiter, Mark, SlotGroup, remove_of_dead_owners};
use crate::directory;
use crate::signals;
use crate::spare::Spare;
use crate::spawn::Spawner;

/// A keeper.
#[derive(Debug)]
pub(super) struct Keeper {
    control: Control,
    /// Readable when a child has ended.
    signals: OwnedFd,
    spawner: Spawner,
    limiter: Limiter,
    slot: Option<SlotGroup>,
    /// Said hello.
    greeted: bool,
    /// The driver is gone.
    closed: bool,
    task: Option<Task>,
    /// Children may have ended since they were last waited for.
    children_changed: bool,
    /// Where output is read to.
    room: BytesMut,
    spare: Spare,
}

impl Keeper {
    pub(super) fn new(control: OwnedFd) -> Result<Self, Fault> {
        Ok(Self {
            control: Control::new(control),
            signals: signals::descriptor(&[libc::SIGCHLD]).map_err(Fault::system("no signalfd could be made"))?,
            spawner: Spawner::new().map_err(Fault::system("processes can't be prepared"))?,
            limiter: Limiter::none("the keeper wasn't greeted"),
            slot: None,
            greeted: false,
            closed: false,
            task: None,
            children_changed: false,
            room: BytesMut::new(),
            spare: Spare::new(),
        })
    }

    /// Until the driver is gone and nothing runs.
    pub(super) fn serve(mut self) -> Result<(), Fault> {
        let served = self.serve_driver();
        if served.is_err() {
            // Whatever it is, no job may outlive this.
            self.close();
            while self.task.is_some() {
                self.advance()?;
                if self.task.is_some() {
                    self.wait()?;
                }
            }
        }
        served
    }

    fn serve_driver(&mut self) -> Result<(), Fault> {
        loop {
            while let Some(message) = self.control.next()? {
                self.handle(message)?;
            }
            self.advance()?;
            if self.closed && self.task.is_none() {
                return Ok(());
            }
            self.control.flush_due()?;
            self.wait()?;
        }
    }

    fn handle(&mut self, message: to_keeper::Message) -> Result<(), Fault> {
        match message {
            to_keeper::Message::Hello(hello) => self.greet(&hello),
            _ if !self.greeted => Err(Fault::Protocol("the first message must be a greeting".into())),
            to_keeper::Message::Start(start) => self.start(start.task_id, &start.task.unwrap_or_default()),
            to_keeper::Message::End(end) => {
                if let Some(task) = self.task.as_mut().filter(|task| task.id == end.task_id) {
                    task.end(Duration::from_millis(end.grace_ms), self.slot.as_ref());
                }
                Ok(())
            }
            to_keeper::Message::Signal(wanted) => {
                let running = self.task.as_ref().filter(|task| task.id == wanted.task_id);
                if let (Some(task), Ok(number)) = (running, c_int::try_from(wanted.signal)) {
                    task.signal(number, self.slot.as_ref());
                }
                Ok(())
            }
            to_keeper::Message::Input(input) => {
                if let Some(task) = self.task.as_mut().filter(|task| task.id == input.task_id) {
                    task.input.push(input.data, input.last);
                }
                self.tell_taken()
            }
            to_keeper::Message::Resize(wanted) => {
                if let Some(task) = self.task.as_ref().filter(|task| task.id == wanted.task_id) {
                    task.resize(wanted.rows, wanted.columns);
                }
                Ok(())
            }
            to_keeper::Message::RemoveDirectory(wanted) => {
                let path = Path::new(OsStr::from_bytes(&wanted.path));
                let failure = directory::remove(path).err().map(|error| (&error).into());
                self.control.queue_now(from_keeper::Message::DirectoryRemoved(wire::DirectoryRemoved { failure }))
            }
            to_keeper::Message::Ping(ping) => {
                self.control.queue_now(from_keeper::Message::Pong(wire::Pong { nonce: ping.nonce }))
            }
        }
    }

    fn greet(&mut self, hello: &wire::Hello) -> Result<(), Fault> {
        if hello.protocol != PROTOCOL || self.greeted {
            return Err(Fault::Protocol(format!(
                "it greets with version {} of the protocol, not once with {PROTOCOL}",
                hello.protocol
            )));
        }
        self.greeted = true;
        let mark = Mark::of(hello.owner_pid);
        let hierarchies = if hello.without_cgroups { Hierarchies::default() } else { Hierarchies::discover() };
        self.limiter = match &mark {
            _ if hello.without_cgroups => Limiter::none("control groups are switched off"),
            None => Limiter::none("the driver's process can't be seen in /proc"),
            Some(mark) => Limiter::probe(&hierarchies, mark, hello.slot),
        };
        self.control.queue_now(from_keeper::Message::Ready(wire::Ready {
            protocol: PROTOCOL,
            pid: std::process::id(),
            offers: Some(self.limiter.offers()),
        }))?;
        // Entering a group can take the kernel some 20 ms: the driver needn't wait, only the first task.
        remove_of_dead_owners(&hierarchies);
        self.slot = mark.and_then(|mark| SlotGroup::enter(&hierarchies, &mark, hello.slot));
        Ok(())
    }

    fn start(&mut self, task_id: u64, request: &v1::StartTask) -> Result<(), Fault> {
        let started = match &self.task {
            None => Task::start(task_id, request, &mut self.spawner, &self.limiter, &mut self.spare),
            Some(running) => {
                let failure = v1::Failure {
                    errno: libc::EBUSY,
                    message: format!("task {} runs here; end it first", running.id),
                    ..Default::default()
                };
                let failed = v1::StartFailed { phase: StartPhase::Request.into(), failure: Some(failure) };
                let outcome = Some(task_result::Outcome::StartFailed(failed));
                Err(Box::new(v1::TaskResult { outcome, ..Default::default() }))
            }
        };
        match started {
            Ok(task) => {
                let started = Some(v1::TaskStarted { pid: task.main.unsigned_abs() });
                self.task = Some(task);
                Ok(self.control.queue(from_keeper::Message::Started(wire::Started { task_id, started }))?)
            }
            Err(result) => self.ended(task_id, *result),
        }
    }

    fn ended(&mut self, task_id: u64, result: v1::TaskResult) -> Result<(), Fault> {
        self.control.queue_now(from_keeper::Message::Ended(wire::Ended { task_id, result: Some(result) }))
    }

    /// The driver is gone: nothing it started may go on.
    fn close(&mut self) {
        self.closed = true;
        if let Some(task) = &mut self.task {
            task.kill(Instant::now());
        }
    }

    /// Tells how much of standard input was taken, where that is news.
    fn tell_taken(&mut self) -> Result<(), Fault> {
        let Some(task) = &mut self.task else { return Ok(()) };
        let (task_id, news) = (task.id, task.input.news());
        match news {
            Some(offset) => {
                self.control.queue_now(from_keeper::Message::InputTaken(wire::InputTaken { task_id, offset }))
            }
            None => Ok(()),
        }
    }

    /// Brings the task as far as it can be without waiting.
    fn advance(&mut self) -> Result<(), Fault> {
        let Some(task) = &mut self.task else {
            return Ok(());
        };
        if !task.alone {
            let was_gone = task.main_is_gone();
            if std::mem::take(&mut self.children_changed) {
                task.reap()?;
            }
            if !task.alone {
                task.press_on(self.slot.as_ref(), !was_gone && task.main_is_gone());
                return Ok(());
            }
        }
        if !self.closed && !task.drain(&mut self.room, &mut self.control)? {
            return Ok(());
        }
        if let Some(task) = self.task.take() {
            let task_id = task.id;
            let result = task.finish(&mut self.spare);
            if !self.closed {
                self.ended(task_id, result)?;
            }
        }
        Ok(())
    }

    /// Waits for something to happen, and takes it in.
    fn wait(&mut self) -> Result<(), Fault> {
        let Some(task) = &mut self.task else {
            if self.control.waiting() == 0 {
                return self.receive(true);
            }
            return self.wait_for_driver();
        };
        let mut awaited = PollFlags::empty();
        if !self.closed {
            awaited |= PollFlags::IN;
        }
        if self.control.is_blocked() {
            awaited |= PollFlags::OUT;
        }
        let leave_at = self.control.leave_at().filter(|_| !self.closed);
        let due = [task.due(), leave_at].into_iter().flatten().min();
        let timeout = due.map(|due| timespec(due.saturating_duration_since(Instant::now())));

        // Nothing is ever asked of a place that isn't waited for: poll reports a closed end whether asked or not.
        let nothing = (self.signals.as_fd(), PollFlags::empty());
        let reading = !self.closed && !self.control.is_full();
        let [stdout, stderr] = task.output_fds().map(|fd| match fd {
            Some(fd) if reading => (fd, PollFlags::IN),
            _ => nothing,
        });
        let places = [
            (self.signals.as_fd(), PollFlags::IN),
            if self.closed { nothing } else { (self.control.fd(), awaited) },
            stdout,
            stderr,
            task.input.wants().filter(|_| !self.closed).map_or(nothing, |fd| (fd, PollFlags::OUT)),
        ];
        let mut fds = places.map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(Fault::system("nothing can be waited for")(error)),
        }
        let [signals, control, stdout, stderr, input] = fds.map(|fd| fd.revents());

        if stdout.contains(PollFlags::IN) {
            task.read(0, &mut self.room, &mut self.control)?;
        }
        if stderr.contains(PollFlags::IN) {
            task.read(1, &mut self.room, &mut self.control)?;
        }
        if !input.is_empty() {
            task.input.write();
            self.tell_taken()?;
        }
        if !signals.is_empty() {
            drop(signals::take(&self.signals));
            self.children_changed = true;
        }
        if control.contains(PollFlags::OUT) {
            self.control.flush()?;
        }
        if control.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            self.receive(false)?;
        }
        Ok(())
    }

    /// Without a task, but with words the driver hasn't taken yet.
    fn wait_for_driver(&mut self) -> Result<(), Fault> {
        let mut fds = [PollFd::from_borrowed_fd(self.control.fd(), PollFlags::IN | PollFlags::OUT)];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(Fault::system("nothing can be waited for")(error)),
        }
        let control = fds[0].revents();
        if control.contains(PollFlags::OUT) {
            self.control.flush()?;
        }
        if control.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            self.receive(false)?;
        }
        Ok(())
    }

    fn receive(&mut self, wait: bool) -> Result<(), Fault> {
        if self.control.receive(wait)? == Received::Closed {
            self.close();
        }
        Ok(())
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: duration.subsec_nanos().into() }
}

/// Makes this process a keeper: no descriptor of its parent's but the control socket and standard error, a session of its own,
/// all signals blocked and none ignored (children get an empty mask and the defaults), subreaper of all below.
pub(super) fn prepare_process(control: OwnedFd) -> Result<OwnedFd, Fault> {
    let system = Fault::system;
    let moved = above_stdio(&control).map_err(system("the control socket can't be moved"))?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .and_then(|null| above_stdio(&null))
        .map_err(system("/dev/null can't be opened"))?;
    rustix::stdio::dup2_stdin(&null).map_err(system("standard input can't be closed"))?;
    rustix::stdio::dup2_stdout(&null).map_err(system("standard output can't be closed"))?;
    if rustix::io::fcntl_getfd(rustix::stdio::stderr()).is_err() {
        rustix::stdio::dup2_stderr(&null).map_err(system("standard error can't be opened"))?;
    }
    if control.as_raw_fd() < FIRST_OWN {
        // Replaced by now: its number is standard input's.
        let _ = control.into_raw_fd();
    }
    keep_from_children(FIRST_OWN).map_err(system("inherited descriptors can't be kept from jobs"))?;
    // Fails only for one that leads a session already.
    let _ = rustix::process::setsid();
    // So that no directory stays in use because keepers were started in it.
    rustix::process::chdir("/").map_err(system("the root directory can't be entered"))?;
    signals::reset();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(system("this process can't become a subreaper"))?;
    Ok(moved)
}

/// The first descriptor that isn't standard input, output or error.
const FIRST_OWN: RawFd = 3;

/// Another descriptor for the same, out of the way of those that children get.
fn above_stdio(fd: &OwnedFd) -> Result<OwnedFd, Errno> {
    rustix::io::fcntl_dupfd_cloexec(fd, FIRST_OWN)
}

/// Marks every descriptor from `first` on to be closed when a program is executed.
fn keep_from_children(first: RawFd) -> Result<(), Errno> {
    // SAFETY: marks descriptors, closes none.
    let marked = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if marked == 0 {
        return Ok(());
    }
    // Kernels before 5.11.
    for entry in std::fs::read_dir("/proc/self/fd").map_err(|_| Errno::NOSYS)?.flatten() {
        let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if fd >= first {
            // SAFETY: borrowed for this call; one that is closed meanwhile is only an error.
            let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
            let _ = rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC);
        }
    }
    Ok(())
}
