//! Moving what was committed from the log into the database file, beside the writer.
//!
//! SQLite's own automatic checkpoints would run in the writer, in the middle of somebody's commit. Here a thread moves
//! while the writer goes on. What is added meanwhile keeps the log from being started anew, so when the log is long and
//! the thread has just moved nearly all of it, the writer moves the short rest itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::connection;
use super::error::from_sqlite;
use crate::StoreError;

/// The log is moved when it has more pages (of 4 KiB) than this.
const START: u32 = 4_096;
/// The writer moves the rest when it has more than this.
const HELP: u32 = 8_192;

/// The thread's handle; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Checkpointer {
    long: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Pages in the log after the last commit.
    pages: Arc<AtomicU32>,
    /// Whether the thread has just moved nearly all.
    moved: Arc<AtomicBool>,
}

impl Checkpointer {
    /// Starts the thread for the writer's database.
    pub(super) fn start(database: PathBuf, writer: &mut Connection) -> Result<Self, StoreError> {
        let pages = Arc::new(AtomicU32::new(0));
        let counted = pages.clone();
        writer
            .wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, count: std::ffi::c_int| {
                counted.store(u32::try_from(count).unwrap_or(0), Ordering::Relaxed);
                Ok(())
            }))
            .map_err(from_sqlite)?;
        let (long, receiver) = sync_channel(1);
        let moved = Arc::new(AtomicBool::new(false));
        let tell = moved.clone();
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".to_owned())
            .spawn(move || run(&database, &receiver, &tell))
            .map_err(|error| StoreError::Unavailable(format!("the checkpoint thread could not be started: {error}")))?;
        Ok(Self { long: Some(long), thread: Some(thread), pages, moved })
    }

    /// The writer has committed.
    pub(super) fn committed(&self, writer: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        if self.moved.swap(false, Ordering::Relaxed) && pages > HELP {
            checkpoint(writer);
        } else if pages > START
            && let Some(long) = &self.long
        {
            // Full: the thread has been told and will look.
            let _ = long.try_send(());
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        drop(self.long.take());
        if let Some(thread) = self.thread.take() {
            // A panic in the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// Opens its connection when it has something to do: a short life never comes to that.
fn run(database: &Path, long: &Receiver<()>, moved: &AtomicBool) {
    let mut connection = None;
    while long.recv().is_ok() {
        if connection.is_none() {
            connection = connection::for_checkpoints(database)
                .inspect_err(|error| tracing::warn!(%error, "the log can't be moved into the database now"))
                .ok();
        }
        if let Some(connection) = &connection {
            checkpoint(connection);
            moved.store(true, Ordering::Relaxed);
        }
    }
}

/// Moves what no reader is in the way of. Waits for nobody.
fn checkpoint(connection: &Connection) {
    let moving = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    if let Err(error) = moving {
        tracing::warn!(%error, "the log could not be moved into the database");
    }
}
