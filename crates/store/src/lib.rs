//! The durable queue: what happens to jobs, each transition one command, batch in and batch out.
//!
//! [`Store`] is the contract. Three implementations keep it: `model` (in memory; the oracle of the property test),
//! `sqlite` (embedded) and `postgres`. One suite, in `tests/suite`, runs against all three. The states and transitions are
//! drawn in `docs/states.md`; [`lifecycle`] holds those rules that all implementations share as pure functions.
//!
//! What may not live here: knowledge of HTTP, of workers' connections, of waiting. A store answers at once.

pub mod lifecycle;
pub mod model;
pub mod postgres;
pub mod sqlite;

mod clock;
mod contract;

pub use clock::{Clock, ManualClock, SystemClock};
pub use contract::*;
