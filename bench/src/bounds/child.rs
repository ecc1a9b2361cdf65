//! The fastest honest way to start a process: `clone` with shared memory on a stack of one's own, as vfork does.
//! `posix_spawn` does the same, and asks for the meaning of 64 signals besides.

use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::os::fd::RawFd;
use std::ptr;

/// Bytes of the child's stack.
const STACK: usize = 64 * 1024;

/// The program of all bounds.
pub(super) const PROGRAM: &CStr = c"/bin/true";

/// What a child does before it becomes the program.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting<'a> {
    /// Where it goes, with a session of its own.
    pub(super) directory: &'a CStr,
    /// Its standard input, output and error.
    pub(super) stdio: [RawFd; 3],
}

/// Starts processes, one after the other.
#[derive(Debug)]
pub(super) struct Starter {
    stack: Vec<u128>,
}

impl Starter {
    pub(super) fn new() -> Self {
        Self { stack: vec![0; STACK / size_of::<u128>()] }
    }

    /// Starts `/bin/true`, as it is or in a setting of its own.
    pub(super) fn start(&mut self, setting: Option<Setting<'_>>) -> io::Result<libc::pid_t> {
        let top = self.stack.as_mut_ptr_range().end.cast::<c_void>();
        let argument = (&raw const setting).cast_mut().cast::<c_void>();
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: CLONE_VFORK holds this thread until the child has left our memory, so stack and setting outlive
        // it and are its alone; a u128's alignment is what a stack needs.
        let pid = unsafe { libc::clone(become_program, top, flags, argument) };
        if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid) }
    }
}

/// Waits for a child that must have succeeded.
pub(super) fn wait(pid: libc::pid_t) -> io::Result<()> {
    let mut status = 0;
    // SAFETY: the status is ours; usage isn't asked for.
    if unsafe { libc::wait4(pid, &raw mut status, 0, ptr::null_mut()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    if status == 0 { Ok(()) } else { Err(io::Error::other(format!("/bin/true ended with status {status}"))) }
}

/// The child's side: system calls and nothing else.
extern "C" fn become_program(argument: *mut c_void) -> c_int {
    let argv = [PROGRAM.as_ptr(), ptr::null()];
    let env = [ptr::null()];
    // SAFETY: `start` passes its setting, which outlives this; all strings are ended by zero, all arrays by null.
    unsafe {
        if let Some(setting) = &*argument.cast::<Option<Setting<'_>>>() {
            let ready = libc::setsid() >= 0
                && libc::dup2(setting.stdio[0], 0) >= 0
                && libc::dup2(setting.stdio[1], 1) >= 0
                && libc::dup2(setting.stdio[2], 2) >= 0
                && libc::chdir(setting.directory.as_ptr()) >= 0;
            if !ready {
                return 126;
            }
        }
        libc::execve(PROGRAM.as_ptr(), argv.as_ptr(), env.as_ptr());
    }
    127
}
