//! Signals as something to wait for: all are blocked, and those that matter come by a descriptor.

use std::ffi::c_int;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;

/// Blocks all signals and gives each its default meaning.
pub(crate) fn reset() {
    /// Bytes of a signal set to the kernel.
    const SET: usize = 8;
    // Handler, flags, restorer and mask as the kernel lays them out: all zero is the default on every machine.
    let default = [0_u64; 4];
    // SAFETY: plain calls on valid memory; a signal number that may not be changed is only an error. The system call
    // itself, since the C library keeps two signals to itself that a parent may have ignored all the same.
    unsafe {
        let mut all = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, ptr::null_mut());
        for number in 1..=libc::SIGRTMAX() {
            libc::syscall(libc::SYS_rt_sigaction, number, default.as_ptr(), ptr::null_mut::<u64>(), SET);
        }
    }
}

/// A descriptor that is readable when one of `wanted` has come.
pub(crate) fn descriptor(wanted: &[c_int]) -> Result<OwnedFd, Errno> {
    // SAFETY: plain calls on a zeroed set; the descriptor made is nobody else's.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        for signal in wanted {
            libc::sigaddset(&raw mut set, *signal);
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL));
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// A signal that came.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Signal {
    pub(crate) number: c_int,
    /// Who sent it; 0 for one who can't be seen from here.
    pub(crate) sender: u32,
}

/// Takes what a descriptor holds, as far as it fits; equal signals that wait are one.
pub(crate) fn take(signals: &OwnedFd) -> impl Iterator<Item = Signal> + use<> {
    const RECORD: usize = size_of::<libc::signalfd_siginfo>();
    const MOST: usize = 8;
    let mut records = [0_u8; MOST * RECORD];
    // Nothing there is fine.
    let read = rustix::io::read(signals.as_fd(), &mut records).unwrap_or(0);
    let mut taken = [Signal::default(); MOST];
    for (signal, record) in taken.iter_mut().zip(records[..read].chunks_exact(RECORD)) {
        let word = |at: usize| record[at..].first_chunk().map_or(0, |word| u32::from_ne_bytes(*word));
        let sender = std::mem::offset_of!(libc::signalfd_siginfo, ssi_pid);
        // The number stands first.
        *signal = Signal { number: word(0).cast_signed(), sender: word(sender) };
    }
    taken.into_iter().take(read / RECORD)
}
