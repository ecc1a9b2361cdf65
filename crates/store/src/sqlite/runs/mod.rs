//! Runs in the embedded store.
//!
//! The graph of a run that isn't final is in memory ([`live`]): which jobs wait for which, how many of its needs each
//! still waits for, what happened before it. All of that follows from what jobs are planned ([`load`] reads it after a
//! restart) and where they stand, so the end of a job writes nothing about successors that go on waiting. What does
//! follow from an end ([`follow`]) is written in the same command.
//!
//! What may not live here: the rules, which are in [`crate::lifecycle::graph`].

mod artifacts;
mod attempt;
mod claimed;
mod events;
mod follow;
mod live;
mod load;
mod query;
mod retention;
mod stop;
mod store;
mod submit;
mod workspace;

pub(super) use attempt::AttemptEnd;
pub(super) use events::JobEnd;
pub(super) use follow::Followed;
pub(super) use live::Runs;
