//! Tells the agent that nobody will call any more.

use rustix::process::{Pid, Signal, kill_process};

use super::HostFault;

/// Has the agent that is `process` end once its callers have gone, instead of waiting for others.
///
/// # Errors
/// When there is no such process, or it is another user's.
pub fn leave(process: &str) -> Result<(), HostFault> {
    let gone = |source| HostFault::Gone { process: process.to_owned(), source };
    let number = process.parse().ok().and_then(Pid::from_raw);
    let number = number.ok_or_else(|| gone(std::io::ErrorKind::InvalidInput.into()))?;
    kill_process(number, Signal::TERM).map_err(|error| gone(error.into()))
}
