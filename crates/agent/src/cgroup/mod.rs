//! Control groups: where they are, whose they are, what they can do for a task.
//!
//! - `hierarchy`: which hierarchies are mounted and where this process stands in them;
//! - `mark`: the owner's mark in every group's name, and the removal of what dead owners left;
//! - `group`: one group: made, joined, listed, killed, removed;
//! - `slot`: the group a keeper and its jobs live in, so that everything can be ended at once;
//! - `limits`: the group of a task that asks for limits.
//!
//! All of this is optional: a keeper ends its jobs without it, too, only not against a fork bomb's will at once.

mod group;
mod hierarchy;
mod limits;
mod mark;
mod slot;

pub use hierarchy::Hierarchies;
pub(crate) use limits::{LimitError, TaskGroup};
pub use limits::{Limiter, Refusal};
pub use mark::{DeadGroup, Mark, of_dead_owners, remove_of_dead_owners};
pub(crate) use slot::SlotGroup;
pub use slot::can_have_group;
