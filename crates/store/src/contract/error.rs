//! What can go wrong in a store.

use executr_spec::QueueName;
use thiserror::Error;

use super::MAX_CLASSES_PER_QUEUE;

/// Why a command was not carried out. Nothing happened then.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The job at `index` asks for a combination of labels that would be one too many in its queue.
    #[error(
        "the queue `{queue}` already holds jobs with {MAX_CLASSES_PER_QUEUE} different combinations of labels and resources; use fewer, or another queue"
    )]
    TooManyClasses {
        /// Which of the submitted jobs.
        index: usize,
        /// The queue.
        queue: QueueName,
    },
    /// A chunk of an upload that doesn't follow the one before.
    #[error("the upload stands at {end}, not at {offset}; start it again")]
    UploadGap {
        /// Where the upload stands.
        end: u64,
        /// Where the chunk starts.
        offset: u64,
    },
    /// The database can't be reached, or said that it can't do it now. Trying again later is right.
    #[error("the database can't be reached: {0}; it is tried again")]
    Unavailable(String),
    /// Another process has the embedded database open.
    #[error("{path} is in use by {holder}; stop that process or use another --data-dir")]
    Locked {
        /// The database file.
        path: String,
        /// Who holds it: a process id and what it runs, as far as known.
        holder: String,
    },
    /// The database was written by a newer program than this one.
    #[error(
        "the database has schema {found}, which needs Executr {needs} or later; this is {this}; upgrade this program"
    )]
    TooNew {
        /// The schema's number.
        found: u32,
        /// The oldest program it serves.
        needs: String,
        /// This program's version.
        this: String,
    },
    /// The settings for the store make no sense.
    #[error("{0}")]
    Config(String),
    /// The database refused a statement or holds what it should not: a fault of ours, or damage.
    #[error("the database reported: {0}")]
    Database(String),
    /// A file beside the database could not be read or written.
    #[error("{path}: {source}; check the disk and the permissions of the data directory")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

impl StoreError {
    /// Whether the same command may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}
