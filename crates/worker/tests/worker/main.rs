//! A whole worker with real keepers, against a coordinator made for tests.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod away;
mod hooks;
mod jobs;
mod layout;
mod leaving;
mod rig;
mod sources;
mod steps;
mod streaming;
mod trees;
mod workflow;
