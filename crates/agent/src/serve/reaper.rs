//! Ends of children, and signals.
//!
//! Every child that ends is waited for here and nowhere else: keepers, and what loses its parent to this process because
//! its keeper was killed, which is killed, too.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::errno;
use super::keepers::{Keepers, ended_child};
use crate::keeper::Fault;
use crate::processes;
use crate::signals;

/// Signals an engine ends a container with, and those a person may send it.
pub(super) const PASSED_ON: [i32; 7] =
    [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGWINCH];

/// Those after which nobody is let in any more.
const LAST: [i32; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];

pub(super) struct Reaper {
    signals: AsyncFd<OwnedFd>,
    keepers: Arc<Keepers>,
}

impl Reaper {
    pub(super) fn new(signals: OwnedFd, keepers: Arc<Keepers>) -> Result<Self, Errno> {
        // SAFETY: the AsyncFd owns the descriptor, which so stays open and the same for as long as it is watched.
        let watched = unsafe { AsyncFd::register_with_interest(signals, Interest::READABLE) };
        let signals = watched.map_err(|error| errno(&error.into()))?;
        Ok(Self { signals, keepers })
    }

    /// Runs for as long as the agent does; says by `closing` that it was asked to end.
    pub(super) async fn run(self, closing: watch::Sender<bool>) -> Result<(), Fault> {
        loop {
            let mut ready = self
                .signals
                .readable()
                .await
                .map_err(|error| Fault::system("signals can't be waited for")(errno(&error)))?;
            let taken: Vec<_> = signals::take(ready.get_inner()).collect();
            if taken.is_empty() {
                ready.clear_ready();
            }
            for signal in taken {
                if signal.number == libc::SIGCHLD {
                    self.reap();
                    continue;
                }
                // As the first process of a container: whoever is in there decides nothing for the others.
                if std::process::id() == 1 && signal.sender != 0 {
                    continue;
                }
                // Keepers block it: what it reaches is what they run.
                for process in processes::descendants() {
                    processes::signal(process, signal.number);
                }
                if LAST.contains(&signal.number) {
                    // Nobody listens when it ends anyway.
                    let _ = closing.send(true);
                }
            }
        }
    }

    fn reap(&self) {
        let mut lost = false;
        while let Some(process) = ended_child(libc::WNOHANG) {
            self.keepers.ended(process);
            lost = true;
        }
        if !lost {
            return;
        }
        for child in processes::children() {
            if !self.keepers.is_one(child) {
                processes::signal(child, libc::SIGKILL);
            }
        }
    }
}
