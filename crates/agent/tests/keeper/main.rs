//! Real processes under a real keeper: the program this crate builds, driven by the driver.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests are tests")]

mod ending;
mod limits;
mod output;
mod rig;
mod starting;
#[path = "../waiting/mod.rs"]
mod waiting;
