//! The client against a real server, also with a bad line between them.

#![allow(clippy::unwrap_used, reason = "a test says in one word that this cannot fail")]

mod calls;
mod consoles;
mod failures;
mod line;
mod lost_lines;
mod runs;
mod server;
mod work;

#[allow(dead_code, reason = "its `main` is for those who run it by hand")]
#[path = "../../examples/submit.rs"]
mod submit;
