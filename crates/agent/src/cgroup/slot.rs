//! The group a keeper lives in together with its jobs, so that each job is in it from birth at no cost. To end all
//! at once the keeper steps out, has the group killed, and steps in again.

use std::io;
use std::path::Path;

use rustix::fs::Access;

use super::group::Group;
use super::{Hierarchies, Mark};

/// Where a keeper's group may be.
fn homes(hierarchies: &Hierarchies) -> impl Iterator<Item = &Path> {
    hierarchies.unified.as_deref().into_iter().chain(hierarchies.v1("freezer"))
}

/// Whether a keeper of this process gets a group. Makes none.
#[must_use]
pub fn can_have_group(hierarchies: &Hierarchies) -> bool {
    homes(hierarchies).any(|home| rustix::fs::access(home, Access::WRITE_OK).is_ok())
}

/// The group of one keeper. Dropped, it is left and removed.
#[derive(Debug)]
pub(crate) struct SlotGroup {
    group: Group,
    /// Where the keeper was before.
    home: Group,
}

impl SlotGroup {
    /// Enters the group of this slot, in version 2's hierarchy or else in version 1's freezer. `None` where neither
    /// is writable. What a dead predecessor left running in it is ended first.
    pub(crate) fn enter(hierarchies: &Hierarchies, mark: &Mark, slot: u32) -> Option<Self> {
        homes(hierarchies).find_map(|home| {
            let path = home.join(mark.name(slot, "slot"));
            let group = match Group::create(path.clone()) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let left = Group::at(path);
                    left.kill();
                    left
                }
                made => made.ok()?,
            };
            // Nobody reads the pressure of this group, and keeping it costs every switch between processes a
            // little. Version 1 and older kernels don't have it.
            let _ = group.set("cgroup.pressure", "0");
            let slot = Self { group, home: Group::at(home.to_owned()) };
            slot.group.enter().ok().map(|()| slot)
        })
    }

    /// Processes in it but this one.
    pub(crate) fn processes(&self) -> Vec<i32> {
        self.group.processes()
    }

    /// Kills everything in it but this process, at once.
    pub(crate) fn kill(&self) {
        if self.home.enter().is_err() {
            return;
        }
        self.group.kill();
        // Outside it still works, only without this way of ending a fork bomb.
        let _ = self.group.enter();
    }
}

impl Drop for SlotGroup {
    fn drop(&mut self) {
        // What can't be removed now is removed by the next start of a keeper, once the owner is gone.
        if self.home.enter().is_ok() {
            let _ = self.group.kill_and_remove();
        }
    }
}
