//! Peers and physical bounds, side by side in one run.
//!
//! - [`bounds`]: what this machine can do at best, without any of our code in between;
//! - [`keepers`]: driver and keepers alone, without a queue.
//!
//! Measures return numbers; only the program prints.

pub mod bounds;
pub mod keepers;
