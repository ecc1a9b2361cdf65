//! What SQLite's and the file system's errors mean for whoever called.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::StoreError;

/// What the failure of a statement means.
pub(super) fn from_sqlite(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        // A full or failing disk may be mended while the program runs; nothing of the command happened.
        Some(
            ErrorCode::DiskFull | ErrorCode::SystemIoFailure | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked,
        ) => StoreError::Unavailable(error.to_string()),
        _ => StoreError::Database(error.to_string()),
    }
}

/// What the failure of an operation on `path` means.
pub(super) fn from_file(path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    move |source| StoreError::File { path: path.display().to_string(), source }
}

/// The database holds what this program never writes.
pub(super) fn damaged(what: impl std::fmt::Display) -> StoreError {
    StoreError::Database(format!("a row holds {what}, which no version of this program writes"))
}
