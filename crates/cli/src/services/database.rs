//! From flags to an open database and a coordinator's rules.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use executr_coordinator::Options;
use executr_store::postgres::{PostgresOptions, PostgresStore};
use executr_store::sqlite::{SqliteOptions, SqliteStore};
use executr_store::{Store, StoreError};

use crate::arguments::{DatabaseArgs, DatabasePlace, QUEUE, QueueRules};
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::host;

/// Below the data directory, images and what containers without a daemon unpack of them.
pub(crate) const IMAGES: &str = "images";

/// Below the data directory, the blobs of trees that runs on this machine use.
pub(crate) const TREES: &str = "trees";

/// The data directory, when a flag names it and when not.
pub(crate) fn data_directory(named: Option<PathBuf>) -> Result<PathBuf> {
    named.map_or_else(host::state_directory, Ok)
}

/// The database the flags name; by default the embedded one.
pub(crate) fn place(arguments: &DatabaseArgs) -> Result<DatabasePlace> {
    arguments.place(|| host::state_directory().map(|state| state.join(QUEUE)))
}

/// Opens a database and brings it up to date if need be.
pub(crate) async fn open(place: &DatabasePlace) -> Result<Arc<dyn Store>> {
    Ok(match place {
        DatabasePlace::Postgres(url) => {
            Arc::new(PostgresStore::connect(PostgresOptions::new(url)).await.map_err(failure)?)
        }
        DatabasePlace::Embedded(directory) => {
            make_directory(directory)?;
            open_embedded(SqliteOptions::new(directory)).await?
        }
    })
}

/// Opens the database of a run on this machine, in its directory. Its blobs are those of all the user's runs and of what
/// their jobs use, as far as these are kept.
pub(crate) async fn open_run(data: &Path, directory: &Path) -> Result<Arc<dyn Store>> {
    make_directory(directory)?;
    let shared_blobs = Some(data.join(TREES));
    open_embedded(SqliteOptions { shared_blobs, ..SqliteOptions::new(directory) }).await
}

/// Opens an embedded database that goes with this process: nothing in it is worth waiting for the disk.
pub(crate) async fn open_for_now(directory: &Path) -> Result<Arc<dyn Store>> {
    open_embedded(SqliteOptions { synced: false, ..SqliteOptions::new(directory) }).await
}

async fn open_embedded(options: SqliteOptions) -> Result<Arc<dyn Store>> {
    Ok(Arc::new(SqliteStore::open(options).await.map_err(failure)?))
}

/// Brings a database up to date and does nothing else; returns what was done to it, as far as it says.
pub(crate) async fn migrate(place: &DatabasePlace) -> Result<Vec<&'static str>> {
    match place {
        DatabasePlace::Postgres(url) => PostgresStore::migrate(&PostgresOptions::new(url)).await.map_err(failure),
        DatabasePlace::Embedded(_) => open(place).await.map(|_| Vec::new()),
    }
}

/// Makes a directory that holds what jobs are and say, for nobody else to read.
pub(crate) fn make_directory(directory: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| {
        Failure::doing(format!("make the directory {}", directory.display()), error)
            .remedy("name another one with --data-dir or EXECUTR_DATA_DIR")
    })
}

/// The coordinator's rules.
pub(crate) fn rules(arguments: &QueueRules) -> Options {
    Options {
        lease: arguments.heartbeat_timeout.0,
        max_output_size: arguments.max_output_size,
        retention: arguments.job_retention.0,
        artifact_retention: arguments.artifact_retention.0,
        cleanup_interval: arguments.cleanup_interval.0,
        ..Options::default()
    }
}

/// The rules for a run's own database: nothing in it goes before the whole of it does.
pub(crate) fn rules_here() -> Options {
    const A_LIFETIME: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    Options { lease: LEASE_HERE, retention: A_LIFETIME, artifact_retention: A_LIFETIME, ..Options::default() }
}

/// Coordinator and worker are one process: a lease that isn't renewed for so long is of a process that died.
const LEASE_HERE: Duration = Duration::from_secs(3);

fn failure(error: StoreError) -> Failure {
    let exit = match error {
        StoreError::Unavailable(_) => Exit::UNREACHABLE,
        StoreError::Config(_) => Exit::USAGE,
        _ => Exit::FAILURE,
    };
    Failure::new(exit, error)
}
