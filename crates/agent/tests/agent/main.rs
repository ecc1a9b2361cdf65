//! The agent as a server, driven over a Unix socket, TCP and its standard input and output.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod calling;
mod cutting;
mod foreign;
mod input;
mod rig;
mod running;
mod trees;
#[path = "../waiting/mod.rs"]
mod waiting;
