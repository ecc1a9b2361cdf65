//! How a process is made: `clone` with shared memory (as vfork does), so that its cost doesn't depend on this
//! process, and an `execve` whose failure comes back as an error number.
//!
//! - `image`: arguments, environment and candidates for the program, as the kernel wants them;
//! - `child`: what runs between `clone` and `execve`;
//! - `explain`: what a failure means to people.

mod child;
mod explain;
mod image;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use executr_agent_protocol::v1;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use child::{ChildStack, Plan};
use image::Image;

use crate::identity::Identity;

/// Control groups a child may join before it executes: one per hierarchy.
pub(crate) const MAX_JOINS: usize = 4;

/// Who runs a program, and with how little.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Becoming<'task> {
    /// Whoever runs the agent when `None`.
    pub(crate) identity: Option<&'task Identity>,
    /// Without any capability, for good.
    pub(crate) without_privileges: bool,
}

/// Why there is no process.
#[derive(Debug)]
pub(crate) struct SpawnError {
    pub(crate) phase: v1::StartPhase,
    pub(crate) failure: v1::Failure,
}

/// Makes processes, one at a time; keeps what is the same for all of them.
#[derive(Debug)]
pub(crate) struct Spawner {
    null: OwnedFd,
    stack: ChildStack,
    image: Image,
}

impl Spawner {
    pub(crate) fn new() -> Result<Self, Errno> {
        Ok(Self {
            null: rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?,
            stack: ChildStack::new()?,
            image: Image::default(),
        })
    }

    /// Starts the task's program in a session of its own, with nothing open but `stdio`, /dev/null where that has nothing.
    /// With `is_terminal` its standard input becomes the terminal of that session.
    /// `joins` are `cgroup.procs` files it writes itself into first. On success the program runs.
    pub(crate) fn spawn(
        &mut self,
        task: &v1::StartTask,
        stdio: [Option<BorrowedFd<'_>>; 3],
        is_terminal: bool,
        joins: &[OwnedFd],
        identity: Option<&Identity>,
    ) -> Result<i32, SpawnError> {
        debug_assert!(joins.len() <= MAX_JOINS);
        let request = |message: String| SpawnError {
            phase: v1::StartPhase::Request,
            failure: v1::Failure { errno: libc::EINVAL, message, ..Default::default() },
        };
        let image = self.image.prepare(task).map_err(|error| request(error.to_string()))?;
        let mut join_fds: [RawFd; MAX_JOINS] = [-1; MAX_JOINS];
        for (slot, join) in join_fds.iter_mut().zip(joins) {
            *slot = join.as_raw_fd();
        }
        let mut plan = Plan::new(
            &image,
            stdio.map(|fd| fd.unwrap_or(self.null.as_fd()).as_raw_fd()),
            is_terminal,
            join_fds,
            &task.resource_limits,
            Becoming { identity, without_privileges: task.without_privileges },
        );
        let pid = self
            .stack
            .run(&mut plan)
            .map_err(|errno| SpawnError { phase: v1::StartPhase::Process, failure: explain::process(errno) })?;
        let Some(failure) = plan.failure() else {
            return Ok(pid);
        };
        // It has exited already; nobody else may learn of it.
        child::reap(pid);
        let program = &task.argv[0];
        Err(match failure.phase {
            child::Phase::Session => {
                SpawnError { phase: v1::StartPhase::Process, failure: explain::process(failure.errno) }
            }
            child::Phase::Cgroup | child::Phase::Rlimits => {
                SpawnError { phase: v1::StartPhase::Limits, failure: explain::limits(failure.errno) }
            }
            child::Phase::User => {
                SpawnError { phase: v1::StartPhase::User, failure: explain::user(failure.errno, &task.user) }
            }
            child::Phase::Chdir => {
                SpawnError { phase: v1::StartPhase::Chdir, failure: explain::chdir(failure.errno, &task.directory) }
            }
            child::Phase::Exec => SpawnError {
                phase: v1::StartPhase::Exec,
                failure: explain::exec(
                    failure.errno,
                    program,
                    image.candidate(failure.candidate),
                    image::search_path(&task.env),
                    &task.directory,
                ),
            },
        })
    }
}
