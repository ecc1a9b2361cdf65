//! The coordinator over the store in memory, whose time the tests move.

#![allow(clippy::unwrap_used, reason = "a test says in one word that this cannot fail")]

mod blobs_and_tokens;
mod cancelling;
mod consoles;
mod counting;
mod exchanges;
mod following;
mod idling;
mod original;
mod outages;
mod renewing;
mod restarts;
mod runs;
mod storms;
mod submitting;
mod support;
