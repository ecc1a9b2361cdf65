//! How a tree is ended.
//!
//! The first process and its group get the signal at once: for nearly every job that is all. What outlives the
//! first process becomes a child of the keeper, the subreaper, and is listed and killed in rounds, each round until
//! the list shows nothing new; from the third on the control group is killed as a whole. A round never decides
//! that the tree is gone: `wait4` does.

use std::collections::HashSet;
use std::ffi::c_int;
use std::time::{Duration, Instant};

use super::task::Task;
use crate::cgroup::SlotGroup;
use crate::processes;

/// How long killed processes are waited for before they are listed again; doubled from round to round.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(64);

/// The round from which the whole group is killed, and listed by /proc, too.
const INSIST: u32 = 2;

/// Times a list is made within a round: something that forks faster than it is killed must not hold up the rest.
const LISTS: usize = 256;

/// Whether and how a task is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It isn't.
    Not,
    /// SIGTERM was sent; SIGKILL follows at this time.
    Grace(Instant),
    /// SIGKILL was sent this many rounds; the next one is due at this time.
    Kill { rounds: u32, next: Instant },
}

impl Task {
    /// Begins to end the task.
    pub(super) fn end(&mut self, grace: Duration, slot: Option<&SlotGroup>) {
        let now = Instant::now();
        let until = now.checked_add(grace);
        match (self.ending, until) {
            (Ending::Kill { .. }, _) => {}
            _ if grace.is_zero() => self.kill(now),
            (Ending::Grace(earlier), Some(until)) => self.ending = Ending::Grace(earlier.min(until)),
            (Ending::Grace(_), None) => {}
            (Ending::Not, until) => {
                if !self.main_is_gone() {
                    processes::signal(self.main, libc::SIGTERM);
                }
                for pid in self.list(slot, false) {
                    if pid != self.main {
                        processes::signal(pid, libc::SIGTERM);
                    }
                }
                // A grace beyond what the clock can count is one without end.
                let far = Duration::from_secs(100 * 365 * 24 * 3600);
                self.ending = Ending::Grace(until.unwrap_or(now + far));
            }
        }
    }

    /// Kills what is known at once; the rest follows in rounds.
    pub(super) fn kill(&mut self, now: Instant) {
        if matches!(self.ending, Ending::Kill { .. }) {
            return;
        }
        if !self.main_is_gone() {
            processes::signal(-self.main, libc::SIGKILL);
            // It may have left its group.
            processes::signal(self.main, libc::SIGKILL);
        }
        self.ending = Ending::Kill { rounds: 0, next: now + FIRST_PAUSE };
    }

    /// Does what is due, while children are left.
    pub(super) fn press_on(&mut self, slot: Option<&SlotGroup>, main_just_ended: bool) {
        match self.ending {
            // Nothing may outlive the first process.
            Ending::Not if self.main_is_gone() => {
                let now = Instant::now();
                self.kill(now);
                self.round(slot, now);
            }
            Ending::Not => {}
            Ending::Grace(until) => {
                let now = Instant::now();
                if until <= now {
                    self.kill(now);
                }
            }
            Ending::Kill { next, .. } => {
                let now = Instant::now();
                if next <= now || main_just_ended {
                    self.round(slot, now);
                }
            }
        }
    }

    /// When there is something to do though nothing happens.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.ending {
            Ending::Not => None,
            Ending::Grace(until) => Some(until),
            Ending::Kill { next, .. } => Some(next),
        }
    }

    /// Sends a signal to every process of the tree.
    pub(super) fn signal(&self, number: c_int, slot: Option<&SlotGroup>) {
        if !self.main_is_gone() {
            processes::signal(-self.main, number);
        }
        for pid in self.list(slot, false) {
            if processes::group(pid) != Some(self.main) {
                processes::signal(pid, number);
            }
        }
    }

    fn round(&mut self, slot: Option<&SlotGroup>, now: Instant) {
        let Ending::Kill { rounds, .. } = self.ending else {
            return;
        };
        let insist = rounds >= INSIST;
        if let Some(group) = &self.group {
            group.kill();
        }
        if insist && let Some(slot) = slot {
            slot.kill();
        }
        let mut killed = HashSet::new();
        for _ in 0..LISTS {
            let found = self.list(slot, insist);
            let mut fresh = false;
            for pid in found {
                if killed.insert(pid) {
                    fresh = true;
                    processes::signal(pid, libc::SIGKILL);
                }
            }
            if !fresh {
                break;
            }
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << rounds.min(6)).min(LONGEST_PAUSE);
        self.ending = Ending::Kill { rounds: rounds.saturating_add(1), next: now + pause };
    }

    /// What runs. Groups tell it fast, but a job may have left them; /proc misses nothing but is slow on a machine
    /// with many processes.
    fn list(&self, slot: Option<&SlotGroup>, thorough: bool) -> Vec<i32> {
        let mut found = Vec::new();
        if let Some(slot) = slot {
            found.extend(slot.processes());
        }
        if let Some(group) = &self.group {
            found.extend(group.processes());
        }
        if slot.is_none() || thorough {
            found.extend(processes::descendants());
        }
        found
    }
}
