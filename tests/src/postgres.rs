//! A real PostgreSQL for tests: private clusters in a temporary directory, ended with whoever uses them.
//!
//! Most tests want a fresh, empty database and share the server with all other tests of the run:
//!
//! ```no_run
//! use executr_tests::postgres;
//!
//! let Some(database) = postgres::database() else { return }; // says why in one line; a failure under CI=true
//! let url = database.url(); // postgres://postgres:…@127.0.0.1:PORT/NAME
//! # let _ = url;
//! ```
//!
//! A test that stops, kills or restarts the server has one to itself:
//!
//! ```no_run
//! use executr_tests::postgres::{Durability, Server, Stop};
//!
//! let Some(mut server) = Server::start(Durability::Synced) else { return };
//! let database = server.database();
//! server.stop(Stop::Crash);
//! server.resume(); // same port, same data: `database.url()` is good again
//! # let _ = database;
//! ```
//!
//! Everything here blocks and works with and without an async runtime around it. A database is dropped with its
//! [`Database`], a server with its [`Server`]. The shared server belongs to the test run: nextest starts a process
//! for each test, so it ends when nextest does, however that ends. Under `cargo test` it ends with the test binary.
//!
//! The server listens on loopback (a free port, a random password) and on a Unix socket in its own directory.
//! Errors are panics which say what PostgreSQL said: a test has nothing better to do with them.

mod cluster;
mod install;
mod place;
mod shared;

use std::path::PathBuf;

use cluster::Cluster;
use install::Install;

/// Whether a server survives the loss of power, which is what tests pay time for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// `fsync=on`, as in production: for tests of what a crash or restart leaves behind.
    Synced,
    /// `fsync=off`: several times faster, and just as good as long as the machine stays up.
    Fast,
}

/// How a server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Sessions are cut, transactions rolled back, everything written out: what an administrator's restart does.
    Fast,
    /// All processes go at once and the next start recovers from the log: what a crash does.
    Crash,
}

/// A fresh database on the server all tests of this run share, or `None` (after saying so) without PostgreSQL.
///
/// The shared server is [`Durability::Fast`].
///
/// # Panics
///
/// If PostgreSQL is here and does not work, or is missing under `CI=true`.
#[must_use]
pub fn database() -> Option<Database> {
    Some(Database::create(shared::cluster(&Install::find()?)))
}

/// A PostgreSQL server that belongs to one test.
#[derive(Debug)]
pub struct Server {
    cluster: Cluster,
    // Removed after the cluster is stopped: fields drop in order, and `Drop` runs before them.
    _directory: tempfile::TempDir,
}

impl Server {
    /// Starts a new, empty server, or gives `None` (after saying so) without PostgreSQL.
    ///
    /// # Panics
    ///
    /// If PostgreSQL is here and does not start, or is missing under `CI=true`.
    #[must_use]
    pub fn start(durability: Durability) -> Option<Self> {
        Self::start_with(durability, &[])
    }

    /// As [`Server::start`], with further server settings, such as `("max_connections", "20")`.
    ///
    /// # Panics
    ///
    /// As [`Server::start`].
    #[must_use]
    pub fn start_with(durability: Durability, settings: &[(&str, &str)]) -> Option<Self> {
        Self::create(durability, settings, &[])
    }

    /// As [`Server::start`], with TLS for whoever wants it: its certificate and key as PEM.
    ///
    /// # Panics
    ///
    /// As [`Server::start`].
    #[must_use]
    pub fn start_with_tls(durability: Durability, certificate: &str, key: &str) -> Option<Self> {
        // The names that PostgreSQL looks for by itself.
        Self::create(durability, &[("ssl", "on")], &[("server.crt", certificate), ("server.key", key)])
    }

    fn create(durability: Durability, settings: &[(&str, &str)], files: &[(&str, &str)]) -> Option<Self> {
        let install = Install::find()?;
        let directory = tempfile::Builder::new()
            .prefix("executr-postgres-")
            .tempdir_in(place::parent(durability))
            .expect("the temporary directory must be writable");
        install.give_directory(directory.path());
        let cluster = Cluster::create(install, directory.path(), durability, settings, files);
        cluster.end_with(std::process::id());
        Some(Self { cluster, _directory: directory })
    }

    /// A fresh database on this server.
    #[must_use]
    pub fn database(&self) -> Database {
        Database::create(self.cluster.clone())
    }

    /// The loopback port, the same across restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.cluster.port()
    }

    /// Ends the server; its data stays. Returns when no process of it is left.
    pub fn stop(&mut self, how: Stop) {
        self.cluster.stop(how);
    }

    /// Starts the server again after [`Server::stop`], on the same port with the same data.
    pub fn resume(&mut self) {
        self.cluster.start();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.cluster.discard();
    }
}

/// One database of a server, dropped with this value.
#[derive(Debug)]
pub struct Database {
    cluster: Cluster,
    name: String,
}

impl Database {
    fn create(cluster: Cluster) -> Self {
        let name = format!("test_{}", cluster::random_word());
        cluster.sql(&format!("CREATE DATABASE {name} TEMPLATE template0"));
        Self { cluster, name }
    }

    /// `postgres://user:password@127.0.0.1:port/name`
    #[must_use]
    pub fn url(&self) -> String {
        self.cluster.url(&self.name)
    }

    /// The database's name on its server.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory of the server's Unix socket, as `host=` takes it. No password is needed there.
    #[must_use]
    pub fn socket_directory(&self) -> PathBuf {
        self.cluster.socket_directory()
    }

    /// Runs SQL as the superuser through `psql` and returns what it prints: unaligned, columns parted by `|`.
    ///
    /// # Panics
    ///
    /// With PostgreSQL's message when a statement fails.
    #[track_caller]
    pub fn sql(&self, statements: &str) -> String {
        self.cluster.sql_in(&self.name, statements)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A stopped server, or one that is gone, takes the database with it.
        self.cluster.try_sql(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
    }
}
