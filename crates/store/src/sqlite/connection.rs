//! How connections to the database are set up.

use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::error::from_sqlite;
use crate::StoreError;

/// The writer's, of which there is one.
pub(super) fn for_writing(database: &Path, synced: bool) -> Result<Connection, StoreError> {
    let connection = Connection::open(database).map_err(from_sqlite)?;
    // First of all, since the next writes already.
    connection.pragma_update(None, "synchronous", if synced { "FULL" } else { "OFF" }).map_err(from_sqlite)?;
    if !synced {
        // Its first page is written without a journal, and at the end nothing needs to be moved into the database.
        connection.pragma_update(None, "journal_mode", "OFF").map_err(from_sqlite)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(from_sqlite)?;
    }
    connection
        .execute_batch(
            "PRAGMA page_size = 4096;
             PRAGMA journal_mode = WAL;
             PRAGMA wal_autocheckpoint = 0;
             PRAGMA cache_size = -16384;
             PRAGMA temp_store = MEMORY;
             PRAGMA busy_timeout = 5000;
             PRAGMA journal_size_limit = 67108864;",
        )
        .map_err(from_sqlite)?;
    connection.set_prepared_statement_cache_capacity(256);
    keep_plans(&connection)?;
    Ok(connection)
}

/// One that can only read.
pub(super) fn for_reading(database: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags).map_err(from_sqlite)?;
    connection.execute_batch("PRAGMA cache_size = -1024; PRAGMA query_only = 1").map_err(from_sqlite)?;
    keep_plans(&connection)?;
    Ok(connection)
}

/// One that only moves the log into the database.
pub(super) fn for_checkpoints(database: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(database).map_err(from_sqlite)?;
    connection
        .execute_batch("PRAGMA cache_size = -256; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0")
        .map_err(from_sqlite)?;
    Ok(connection)
}

/// Keeps SQLite from planning a statement by the values that are bound: it would parse and plan it anew for each execution
/// with others, which takes three times as long as finding a job.
fn keep_plans(connection: &Connection) -> Result<(), StoreError> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop).map_err(from_sqlite)
}
