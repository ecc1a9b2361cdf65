//! The owner's mark in every group's name: process id and start time of the driver, which together name it for as
//! long as the machine runs, and the namespace that process id counts in. So what SIGKILL left behind is known as
//! such, and nothing else is ever touched.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use super::Hierarchies;
use super::group::Group;
use crate::processes;

const PREFIX: &str = "executr";

/// Whose a group is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    owner: u32,
    started: u64,
    namespace: u64,
}

impl Mark {
    /// The mark of a living process; `None` when it isn't living (any more).
    #[must_use]
    pub fn of(owner: u32) -> Option<Self> {
        Some(Self { owner, started: processes::start_time(owner)?, namespace: namespace()? })
    }

    /// A group's name.
    pub(super) fn name(&self, slot: u32, use_of_it: &str) -> String {
        format!("{PREFIX}-{}-{}-{}-{slot}-{use_of_it}", self.owner, self.started, self.namespace)
    }

    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.split('-');
        if parts.next()? != PREFIX {
            return None;
        }
        let mark = Self {
            owner: parts.next()?.parse().ok()?,
            started: parts.next()?.parse().ok()?,
            namespace: parts.next()?.parse().ok()?,
        };
        let _slot: u32 = parts.next()?.parse().ok()?;
        Some(mark)
    }

    /// Whether its owner is known to be dead. One of another namespace can't be judged from here.
    fn is_dead(&self) -> bool {
        namespace() == Some(self.namespace) && processes::start_time(self.owner) != Some(self.started)
    }
}

/// Number of the namespace our process ids count in.
fn namespace() -> Option<u64> {
    let link = fs::read_link("/proc/self/ns/pid").ok()?;
    link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()
}

/// A group whose owner is dead.
#[derive(Debug)]
pub struct DeadGroup(Group);

impl DeadGroup {
    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// How many processes are in it.
    #[must_use]
    pub fn processes(&self) -> usize {
        self.0.processes().len()
    }

    /// Removes it, with all that still runs in it.
    ///
    /// # Errors
    /// When it stays.
    pub fn remove(self) -> io::Result<()> {
        self.0.kill_and_remove()
    }
}

/// Removes the groups of dead owners beside and below this process's own, with all that still runs in them.
pub fn remove_of_dead_owners(hierarchies: &Hierarchies) {
    for group in of_dead_owners(hierarchies) {
        // What can't be removed now is left to the next start.
        let _ = group.remove();
    }
}

/// The groups of dead owners beside and below this process's own, each once.
#[must_use]
pub fn of_dead_owners(hierarchies: &Hierarchies) -> Vec<DeadGroup> {
    // Several controllers may share a hierarchy.
    let parents: BTreeSet<&Path> = hierarchies.all().flat_map(|own| [Some(own), own.parent()]).flatten().collect();
    parents.into_iter().flat_map(dead_in).collect()
}

fn dead_in(parent: &Path) -> Vec<DeadGroup> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let dead =
        entries.filter(|entry| entry.file_name().to_str().and_then(Mark::parse).is_some_and(|mark| mark.is_dead()));
    dead.map(|entry| DeadGroup(Group::at(entry.path()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_their_owner() {
        let mark = Mark::of(std::process::id()).unwrap();
        assert_eq!(Mark::parse(&mark.name(3, "slot")), Some(mark.clone()));
        assert!(!mark.is_dead());
        for other in ["executr", "executr-1-2", "executr-1-2-x-0-slot", "user-1-2-3-4-slot", "executr-a-b-c-d"] {
            assert_eq!(Mark::parse(other), None, "{other}");
        }
    }

    #[test]
    fn another_start_time_is_another_process() {
        let mark = Mark::of(std::process::id()).unwrap();
        assert!(Mark { started: mark.started + 1, ..mark.clone() }.is_dead());
        assert!(!Mark { started: 0, namespace: 1, ..mark }.is_dead(), "another namespace can't be judged");
    }

    #[test]
    fn only_the_dead_owners_groups_go() {
        let living = Mark::of(std::process::id()).unwrap();
        let dead = Mark { started: living.started + 1, ..living.clone() };
        let temp = tempfile::tempdir().unwrap();
        for name in [&living.name(0, "slot"), &dead.name(0, "slot"), &dead.name(1, "task"), "executr-config", "other"] {
            fs::create_dir(temp.path().join(name)).unwrap();
        }
        for group in dead_in(temp.path()) {
            group.remove().unwrap();
        }
        let mut left: Vec<_> = fs::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [living.name(0, "slot").as_str(), "executr-config", "other"]);
    }
}
