//! Whole trees of files where the agent is.
//!
//! - `transfer`: a thread for each transfer, and the pieces between it and the caller's stream;
//! - `put`: a tree out of a stream into a directory;
//! - `take`: what stands somewhere, into a stream;
//! - `goldens`: trees kept ready, to make others of;
//! - `pack`: what changed, as an archive into a stream;
//! - `watch`: what is touched, while it is;
//! - `notes`: what directories looked like, and what is different now.
//!
//! All of it waits for files, on threads that end with their call. What trees, streams and changes are is the business of the tree
//! crate: here is what a call asks of it, and how its errors are told.

mod goldens;
mod notes;
mod pack;
mod put;
mod take;
mod transfer;
mod watch;

use executr_agent_protocol::v1::Failure;
use executr_tree::stream::{StreamError, TakingError};
use executr_tree::{LookError, MaterialiseError};

pub(crate) use goldens::Goldens;
pub(crate) use notes::Notes;
pub(crate) use pack::pack;
pub(crate) use put::put;
pub(crate) use take::take;
pub(crate) use transfer::{AHEAD, Pieces, Stop, apart};
pub(crate) use watch::watch;

/// An error for people, with the number of it if the kernel refused.
fn failure(error: &dyn std::error::Error, source: Option<&std::io::Error>) -> Failure {
    Failure {
        errno: source.and_then(std::io::Error::raw_os_error).unwrap_or(0),
        message: error.to_string(),
        path: Default::default(),
    }
}

fn stream_failure(error: &StreamError) -> Failure {
    let source = match error {
        StreamError::Place(MaterialiseError::Io { source, .. })
        | StreamError::Take(TakingError::Io { source, .. })
        | StreamError::Look(LookError::Io { source, .. }) => Some(source),
        _ => None,
    };
    failure(error, source)
}

fn look_failure(error: &LookError) -> Failure {
    let source = match error {
        LookError::Io { source, .. } => Some(source),
        LookError::TooMany { .. } => None,
    };
    failure(error, source)
}
