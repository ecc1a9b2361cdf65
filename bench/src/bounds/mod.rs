//! What this machine can do at best: the physical bounds every other figure is told against.
//!
//! - [`B1`](sync::B1): one thread starts and waits for `/bin/true`, then syncs one small write;
//! - [`B2`](busy::B2): two threads, each with a directory, a session, two pipes read to their end, per child;
//! - `child`: the fastest honest way to start a process, used by both.

pub mod busy;
mod child;
pub mod sync;
