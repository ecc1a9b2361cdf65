//! Images pulled, built and pushed, with real registries, engines and tools.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod accepted;
mod build;
mod pull;
mod push;
mod reach;
mod rig;
mod shared;
