//! The server as its clients meet it: over sockets, with the coordinator on a store in memory.

#![allow(clippy::unwrap_used, reason = "a test says in one word that this cannot fail")]

mod access;
mod blobs;
mod bounds;
mod documented;
mod errors;
mod events;
mod garbage;
mod metrics;
mod original;
mod output;
mod property;
mod running;
mod runs;
mod stopping;
mod tls;
mod waiting;
