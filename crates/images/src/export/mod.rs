//! Images brought elsewhere.
//!
//! - `layout`: a directory in the layout of the Open Container Initiative;
//! - `archive`: a file as `docker save` writes it;
//! - `engine`: the same, into an engine that runs;
//! - `push`: into a registry, only what it lacks.

mod archive;
mod engine;
mod layout;
mod push;

pub use engine::EngineAddress;
pub use push::Sent;
