//! What changed in a directory as an archive, and that unpacked somewhere else.
//!
//! - [`pack`]: files, directories and links that came or changed, with modes, extended attributes and holes;
//! - [`unpack`]: putting them below a directory, over what is there.
//!
//! An archive is a tar stream in the form of GNU tar, with attributes in headers of pax, compressed as its kind says; `.tar.s2`
//! is the framed form of Snappy, which every reader of S2 takes. What was deleted stands in its last file, [`DELETED`], each
//! path ended by a NUL; there is none when nothing was.

mod pack;
mod unpack;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub use pack::{Packed, pack_modified};
pub use unpack::{Unpacked, unpack_modified};

/// The file in an archive that lists what was deleted. A file of this name is never packed.
pub const DELETED: &str = ".executr-deleted";

/// What the names of extended attributes begin with in headers.
const ATTRIBUTE: &str = "SCHILY.xattr.";

/// Why there is no archive, or it isn't unpacked.
#[derive(Debug, Error)]
pub enum ModifiedError {
    /// The archive can't be written.
    #[error("the archive can't be written: {0}; check that there is space left")]
    Write(#[source] io::Error),
    /// The archive can't be read.
    #[error("the archive can't be read: {0}; get it again")]
    Read(#[source] io::Error),
    /// The system refused something about a file.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The archive holds what none of ours does.
    #[error("the archive holds `{name}`, which {problem}; nothing of that kind is unpacked")]
    Odd {
        /// Its name there.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
}

#[cfg(test)]
mod tests;
