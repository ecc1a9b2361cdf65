//! The embedded store: one directory, one process.
//!
//! A SQLite database holds the queue. One thread writes ([`writer`]), commits in groups and keeps in memory what decides
//! ([`index`], [`lease`]); others read. Output of running attempts ([`output`]) and blobs ([`blobs`]) are files beside it.
//!
//! What may not live here: rules of the queue that are not about SQLite; they are in [`crate::lifecycle`].

mod blobs;
mod checkpoint;
mod claim;
mod concurrency;
mod connection;
mod error;
mod finish;
mod index;
mod lease;
mod lock;
mod moves;
mod options;
mod output;
mod query;
mod readers;
mod register;
mod retention;
mod row;
mod runs;
mod schema;
mod statements;
mod store;
mod submit;
mod writer;

pub use options::SqliteOptions;
pub use store::SqliteStore;
