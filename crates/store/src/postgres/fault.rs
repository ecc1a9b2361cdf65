//! What can go wrong in a statement, and whether trying again helps.

use std::error::Error as _;

use tokio_postgres::error::SqlState;

use crate::StoreError;

/// Why a unit of work was not carried out.
#[derive(Debug)]
pub(super) enum Fault {
    /// The connection is gone. Whether the work was committed is not known.
    Lost(String),
    /// The database is there and asks to be asked again: two transactions stood in each other's way.
    Again(String),
    /// A table that the statement names isn't there.
    NoTable(String),
    /// It will not work however often it is tried.
    Refused(StoreError),
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(fault) = Self::from_code(&error) {
            return fault;
        }
        let text = describe(&error);
        if error.code().is_none() && (error.is_closed() || has_io_source(&error)) {
            return Self::Lost(text);
        }
        Self::Refused(StoreError::Database(text))
    }
}

impl Fault {
    /// The fault that a server's error code stands for, unless it is a refusal.
    pub(super) fn from_code(error: &tokio_postgres::Error) -> Option<Self> {
        let code = error.code()?;
        let text = describe(error);
        if is_conflict(code) {
            Some(Self::Again(text))
        } else if is_away(code) {
            Some(Self::Lost(text))
        } else if *code == SqlState::UNDEFINED_TABLE {
            Some(Self::NoTable(text))
        } else {
            None
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

/// The error with PostgreSQL's own words, which its `Display` leaves out.
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => match db.detail() {
            Some(detail) => format!("{} ({detail})", db.message()),
            None => db.message().to_owned(),
        },
        None => match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

/// The same statement works when it is repeated.
fn is_conflict(code: &SqlState) -> bool {
    [SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE, SqlState::LOCK_NOT_AVAILABLE].contains(code)
}

/// The server goes, comes, or has no room just now.
fn is_away(code: &SqlState) -> bool {
    code.code().starts_with("08")
        || [
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
            SqlState::TOO_MANY_CONNECTIONS,
            SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
            SqlState::READ_ONLY_SQL_TRANSACTION,
        ]
        .contains(code)
}

fn has_io_source(error: &tokio_postgres::Error) -> bool {
    error.source().is_some_and(|source| source.is::<std::io::Error>())
}
