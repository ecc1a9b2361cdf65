//! Trees of real files: made, put somewhere, compared.

#![allow(clippy::unwrap_used, reason = "a test says in one word that this cannot fail")]

mod archived;
mod changed;
mod directories;
mod git;
mod golden;
mod hostile;
mod kept;
mod round_trip;
mod streamed;
mod transferred;
mod watched;
