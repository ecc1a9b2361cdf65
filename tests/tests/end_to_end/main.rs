//! The whole program from outside: what a user types, what other programs send, what happens when something dies.
//!
//! Every test has a home, a database and ports of its own. Nothing here waits for a fixed time: it waits for what
//! must happen, and gives up when that takes absurdly long.

#![allow(clippy::unwrap_used, reason = "a test says in one word that this cannot fail")]

mod cancelling;
mod choosing;
mod commanded;
mod commands;
mod consoles;
mod containers;
mod faults;
mod fleet;
mod hosts;
mod http;
mod images;
mod lines;
mod looking;
mod machine;
mod original;
mod run;
mod run_faults;
mod runs;
mod slots;
mod sources;
mod system;
mod tls;
mod tokens;
mod uploads;
mod workflows;
