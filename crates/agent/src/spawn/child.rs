//! What happens between `clone` and `execve`.
//!
//! The child runs in this process's memory, on a stack of its own, while this process stands still; so it makes
//! system calls and nothing else: no allocation, no locks, no panics. What failed it leaves in the [`Plan`].

use std::ffi::{c_char, c_int, c_void};
use std::marker::PhantomData;
use std::os::fd::RawFd;
use std::ptr;

use executr_agent_protocol::v1::ResourceLimit;
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

use super::image::Prepared;
use super::{Becoming, MAX_JOINS};

/// Bytes of the child's stack; it uses a few hundred.
const STACK: usize = 64 * 1024;

/// Bytes below it that fault, on machines with pages of up to this size.
const GUARD: usize = 64 * 1024;

/// What the child was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Session,
    Cgroup,
    Chdir,
    Rlimits,
    User,
    Exec,
}

/// Why the child didn't become the program.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChildFailure {
    pub(super) phase: Phase,
    pub(super) errno: Errno,
    /// Which candidate for the program the error is about.
    pub(super) candidate: usize,
}

/// All the child needs, prepared before it exists.
#[derive(Debug)]
pub(super) struct Plan<'task> {
    directory: *const c_char,
    argv: *const *const c_char,
    env: *const *const c_char,
    candidates: *const *const c_char,
    /// Standard input, output and error; none of them 0, 1 or 2.
    stdio: [RawFd; 3],
    /// Standard input is to be the session's terminal.
    is_terminal: bool,
    joins: [RawFd; MAX_JOINS],
    rlimits: *const ResourceLimit,
    rlimit_count: usize,
    becoming: Becoming<'task>,
    parent: libc::pid_t,
    failure: Option<ChildFailure>,
    borrows: PhantomData<&'task ()>,
}

impl<'task> Plan<'task> {
    pub(super) fn new(
        image: &'task Prepared<'_>,
        stdio: [RawFd; 3],
        is_terminal: bool,
        joins: [RawFd; MAX_JOINS],
        rlimits: &'task [ResourceLimit],
        becoming: Becoming<'task>,
    ) -> Self {
        debug_assert!(stdio.iter().all(|fd| *fd > 2));
        Self {
            directory: image.directory(),
            argv: image.argv(),
            env: image.env(),
            candidates: image.candidates(),
            stdio,
            is_terminal,
            joins,
            rlimits: rlimits.as_ptr(),
            rlimit_count: rlimits.len(),
            becoming,
            parent: rustix::process::getpid().as_raw_nonzero().get(),
            failure: None,
            borrows: PhantomData,
        }
    }

    pub(super) fn failure(&self) -> Option<ChildFailure> {
        // SAFETY: a plain read of a valid field; volatile, since another process may have written it.
        unsafe { ptr::read_volatile(&raw const self.failure) }
    }
}

/// The stack children run on, one after the other.
#[derive(Debug)]
pub(super) struct ChildStack {
    lowest: *mut c_void,
}

impl ChildStack {
    pub(super) fn new() -> Result<Self, Errno> {
        // SAFETY: new memory of our own, at an address the kernel chooses.
        unsafe {
            let lowest = rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                GUARD + STACK,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::STACK | MapFlags::NORESERVE,
            )?;
            let stack = Self { lowest };
            rustix::mm::mprotect(lowest, GUARD, MprotectFlags::empty())?;
            Ok(stack)
        }
    }

    /// Runs the child; returns when it has executed the program or failed, with its process id.
    pub(super) fn run(&mut self, plan: &mut Plan<'_>) -> Result<libc::pid_t, Errno> {
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let argument = ptr::from_mut(plan).cast::<c_void>();
        // SAFETY: CLONE_VFORK holds this thread, the only one to touch `plan` and the stack, until the child
        // has left our memory; the stack's top is aligned as the mapping is; `child` meets what it demands.
        let pid = unsafe { libc::clone(child, self.lowest.byte_add(GUARD + STACK), flags, argument) };
        if pid < 0 {
            return Err(last_errno());
        }
        Ok(pid)
    }
}

impl Drop for ChildStack {
    fn drop(&mut self) {
        // SAFETY: our own mapping, used by nobody: `run` borrows it for as long as a child is on it.
        let _ = unsafe { rustix::mm::munmap(self.lowest, GUARD + STACK) };
    }
}

/// Waits for a child that is known to have exited or to be exiting.
pub(super) fn reap(pid: libc::pid_t) {
    loop {
        // SAFETY: no status or usage is asked for.
        let waited = unsafe { libc::wait4(pid, ptr::null_mut(), 0, ptr::null_mut()) };
        if waited != -1 || last_errno() != Errno::INTR {
            return;
        }
    }
}

fn last_errno() -> Errno {
    // SAFETY: the address of this thread's error number is always valid.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}

/// The child. Returning ends it.
extern "C" fn child(argument: *mut c_void) -> c_int {
    // SAFETY: `run` passes a plan that outlives this and that nobody else touches meanwhile.
    let plan = unsafe { &mut *argument.cast::<Plan<'_>>() };
    // SAFETY: as above; all pointers in the plan are valid, see `Plan::new`.
    let failure = unsafe { become_program(plan) };
    // SAFETY: a plain write; volatile, since the reader is another process to the compiler's mind.
    unsafe { ptr::write_volatile(&raw mut plan.failure, Some(failure)) };
    127
}

/// Becomes the program, or says why not.
///
/// # Safety
/// Only on the child's side of `clone`. Strings and arrays of the plan are ended by zero and null.
unsafe fn become_program(plan: &Plan<'_>) -> ChildFailure {
    let failed = |phase| ChildFailure { phase, errno: last_errno(), candidate: 0 };
    // SAFETY: system calls on valid pointers; what they change (session, descriptors, directory, signal mask)
    // is the child's own, since it shares nothing with its parent but memory.
    unsafe {
        if libc::setsid() < 0 {
            return failed(Phase::Session);
        }
        for (target, source) in (0..).zip(plan.stdio) {
            if libc::dup2(source, target) < 0 {
                return failed(Phase::Session);
            }
        }
        if plan.is_terminal && libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
            return failed(Phase::Session);
        }
        for group in plan.joins {
            if group >= 0 && libc::write(group, c"0".as_ptr().cast(), 1) < 0 {
                return failed(Phase::Cgroup);
            }
        }
        for number in 0..plan.rlimit_count {
            let wanted = &*plan.rlimits.add(number);
            let limit = libc::rlimit { rlim_cur: wanted.soft, rlim_max: wanted.hard };
            if libc::setrlimit(wanted.resource, &raw const limit) < 0 {
                return failed(Phase::Rlimits);
            }
        }
        if !become_user(&plan.becoming) {
            return failed(Phase::User);
        }
        if libc::chdir(plan.directory) < 0 {
            return failed(Phase::Chdir);
        }
        // Only now: the kernel forgets it when the user changes.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != plan.parent {
            // It died before it could be watched.
            libc::_exit(127);
        }
        // The keeper blocks all signals, and handles or ignores none; execve keeps the mask.
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());

        execute(plan)
    }
}

/// Becomes the user the program is to run as, and gives up what the agent may do beyond that; whether that worked.
///
/// By system calls themselves: the C library's functions tell other threads, of which there are none here.
///
/// # Safety
/// As [`become_program`].
unsafe fn become_user(becoming: &Becoming<'_>) -> bool {
    /// `_LINUX_CAPABILITY_VERSION_3`, of two words for each of the three sets.
    const VERSION: u32 = 0x2008_0522;
    // SAFETY: system calls on valid pointers and plain numbers.
    unsafe {
        if let Some(identity) = becoming.identity {
            let (groups, gid, uid) = (&identity.groups, identity.gid, identity.uid);
            // In a namespace of one user the kernel lets nobody set groups, and there is nobody else to become.
            let stays = || last_errno() == Errno::PERM && libc::geteuid() == uid && libc::getegid() == gid;
            if (libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) < 0 && !stays())
                || libc::syscall(libc::SYS_setresgid, gid, gid, gid) < 0
                || libc::syscall(libc::SYS_setresuid, uid, uid, uid) < 0
            {
                return false;
            }
        }
        if becoming.without_privileges {
            let header = [VERSION, 0];
            let none = [0_u32; 6];
            if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0
                || libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) < 0
            {
                return false;
            }
        }
    }
    true
}

/// Executes the first candidate that can be.
///
/// # Safety
/// As [`become_program`].
unsafe fn execute(plan: &Plan<'_>) -> ChildFailure {
    // One that exists and may not be executed says more than those that don't exist.
    let mut found = ChildFailure { phase: Phase::Exec, errno: Errno::NOENT, candidate: 0 };
    let mut number = 0;
    loop {
        // SAFETY: the array is ended by null, which is where this ends.
        let candidate = unsafe { *plan.candidates.add(number) };
        if candidate.is_null() {
            return found;
        }
        // SAFETY: zero-ended strings and null-ended arrays.
        unsafe { libc::execve(candidate, plan.argv, plan.env) };
        match last_errno() {
            Errno::NOENT => {}
            errno @ Errno::NOTDIR if found.errno == Errno::NOENT => found.errno = errno,
            Errno::NOTDIR => {}
            errno @ Errno::ACCESS => found = ChildFailure { errno, candidate: number, ..found },
            errno => {
                return ChildFailure { errno, candidate: number, ..found };
            }
        }
        number += 1;
    }
}
