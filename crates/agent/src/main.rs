//! The agent as a program of its own; `executr keeper` is the same within the one program people install.

use std::os::fd::{FromRawFd, OwnedFd};
use std::process::ExitCode;

fn main() -> ExitCode {
    // SAFETY: descriptor 0 is the socket a driver hands over; nothing else in this program uses it.
    let control = unsafe { OwnedFd::from_raw_fd(0) };
    match executr_agent::keeper::run(control) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            use std::io::Write;
            // Standard error is the driver's own; if even that is gone, the exit code must do.
            let _ = writeln!(std::io::stderr(), "executr-agent: {fault}");
            ExitCode::FAILURE
        }
    }
}
