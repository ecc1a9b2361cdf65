//! The coordinator over the store in memory, whose time the tests move.

#![allow(clippy::unwrap_used, reason = "a test says in one word that this cannot fail")]

mod exchanges;
mod support;
