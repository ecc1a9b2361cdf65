//! Why a server can't start or go on.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a server can't start or go on.
#[derive(Debug, Error)]
pub enum ServerError {
    /// A file of `--tls-cert` or `--tls-key` can't be read.
    #[error("{} can't be read: {source}; check the path and its permissions", path.display())]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file of `--tls-cert` or `--tls-key` holds something else.
    #[error("{} is not what it should be: {problem}", path.display())]
    TlsContent {
        /// The file.
        path: PathBuf,
        /// What is wrong and what it should hold.
        problem: String,
    },
    /// Certificate and key don't belong together, or can't be used.
    #[error("{} and {} can't be used together: {problem}", cert.display(), key.display())]
    TlsPair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The listener can't be used.
    #[error("can't listen: {0}")]
    Listen(#[source] io::Error),
}
