//! The stores, each fresh and on a disk that is synced.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use executr_store::Store;
use executr_store::postgres::{PostgresOptions, PostgresStore};
use executr_store::sqlite::{SqliteOptions, SqliteStore};
use executr_tests::postgres::{Database, Durability, Server};

/// A store and what goes with it when it is dropped.
pub struct Opened {
    /// The store.
    pub store: Arc<dyn Store>,
    _directory: Option<tempfile::TempDir>,
    // Fields drop in order: the store, its database, the server.
    _postgres: Option<(Database, Server)>,
}

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SQLite in this process.
    Embedded,
    /// A PostgreSQL server of its own.
    Postgres,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Embedded, Self::Postgres];

    /// What the table calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Postgres => "PostgreSQL",
        }
    }

    /// Opens a fresh one; `None` when PostgreSQL is not installed.
    ///
    /// # Errors
    /// When it can't be opened.
    pub async fn open(self) -> io::Result<Option<Opened>> {
        match self {
            Self::Embedded => embedded(Duration::ZERO).await.map(Some),
            Self::Postgres => {
                let Some(server) = tokio::task::block_in_place(|| Server::start(Durability::Synced)) else {
                    return Ok(None);
                };
                let database = server.database();
                let store =
                    PostgresStore::connect(PostgresOptions::new(database.url())).await.map_err(io::Error::other)?;
                Ok(Some(Opened { store: Arc::new(store), _directory: None, _postgres: Some((database, server)) }))
            }
        }
    }
}

/// A fresh embedded store whose every sync takes so much longer.
///
/// # Errors
/// When it can't be opened.
pub async fn embedded(sync_delay: Duration) -> io::Result<Opened> {
    let directory = tempfile::tempdir()?;
    let mut options = SqliteOptions::new(directory.path());
    options.sync_delay = sync_delay;
    let store = SqliteStore::open(options).await.map_err(io::Error::other)?;
    Ok(Opened { store: Arc::new(store), _directory: Some(directory), _postgres: None })
}
