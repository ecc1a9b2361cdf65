//! Where the database is and how it is used.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::StoreError;

/// The most connections a store may be told to open.
const MOST_CONNECTIONS: usize = 100;

/// How a [`PostgresStore`](super::PostgresStore) is opened.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// `postgres://user:password@host:port/database`, or libpq's `host=… dbname=…`.
    pub url: String,
    /// How many connections at most, beside two for notifications; 8 by default.
    pub connections: usize,
    /// How long a command waits for a database that is away before it gives up; 30 s by default.
    pub patience: Duration,
    /// Microseconds to add to the database's clock; for tests.
    pub clock_offset: Arc<AtomicI64>,
}

impl PostgresOptions {
    /// The defaults for this database.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            connections: 8,
            patience: Duration::from_secs(30),
            clock_offset: Arc::new(AtomicI64::new(0)),
        }
    }

    /// Reads the URL.
    pub(super) fn config(&self) -> Result<Config, StoreError> {
        if self.connections < 2 || self.connections > MOST_CONNECTIONS {
            return Err(StoreError::Config(format!(
                "{} connections to the database; give between 2 and {MOST_CONNECTIONS}",
                self.connections
            )));
        }
        // `verify-ca` and `verify-full` are unknown to tokio-postgres; they ask for TLS as `require` does.
        let asks_for_tls = ["sslmode=require", "sslmode=verify-ca", "sslmode=verify-full"];
        if asks_for_tls.iter().any(|mode| self.url.contains(mode)) {
            return Err(tls_refused());
        }
        let mut config = Config::from_str(&self.url).map_err(|error| {
            StoreError::Config(format!(
                "the database URL can't be read: {}; write it as postgres://user:password@host:5432/database",
                super::fault::describe(&error)
            ))
        })?;
        if config.get_ssl_mode() == SslMode::Require {
            return Err(tls_refused());
        }
        if config.get_hosts().is_empty() {
            return Err(StoreError::Config(
                "the database URL names no host; write it as postgres://user:password@host:5432/database".to_owned(),
            ));
        }
        config.ssl_mode(SslMode::Disable);
        if config.get_application_name().is_none() {
            config.application_name("executr");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(10));
        }
        // A server that is gone without a word is noticed within half a minute, asked something or not.
        config.tcp_user_timeout(Duration::from_secs(30));
        config
            .keepalives_idle(Duration::from_secs(15))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3);
        Ok(config)
    }
}

fn tls_refused() -> StoreError {
    StoreError::Config(
        "the database URL asks for TLS, which this version does not speak to PostgreSQL; use a Unix socket, a private \
         network or a local TLS tunnel, and leave sslmode out"
            .to_owned(),
    )
}

/// The host and port in words, for errors; never the password.
pub(super) fn place(config: &Config) -> String {
    let ports = config.get_ports();
    let places: Vec<_> = config
        .get_hosts()
        .iter()
        .enumerate()
        .map(|(index, host)| {
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) => format!("{name}:{port}"),
                Host::Unix(path) => format!("{} (port {port})", path.display()),
            }
        })
        .collect();
    places.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        PostgresOptions::new(url).config().expect_err(url).to_string()
    }

    #[test]
    fn a_url_that_cannot_work_is_refused_with_what_to_write() {
        assert!(refused("mysql://x").contains("write it as postgres://"));
        assert!(refused("postgres:///jobs").contains("names no host"));
        for mode in ["require", "verify-full"] {
            assert!(refused(&format!("postgres://h/jobs?sslmode={mode}")).contains("TLS"), "{mode}");
        }
        let mut options = PostgresOptions::new("postgres://h/jobs");
        options.connections = 1;
        assert!(options.config().expect_err("too few").to_string().contains("between 2 and"));
    }

    #[test]
    fn errors_name_the_place_without_the_password() {
        let config = PostgresOptions::new("postgres://me:secret@db.example:6543/jobs").config().expect("a URL");
        assert_eq!(place(&config), "db.example:6543");
        let config = PostgresOptions::new("host=/run/postgresql dbname=jobs").config().expect("a socket");
        assert_eq!(place(&config), "/run/postgresql (port 5432)");
    }
}
