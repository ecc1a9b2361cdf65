//! Where the database is and how it is used.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use super::address::Address;
use super::tls::{self, Mode};
use super::url_settings::{self, Parted};
use crate::StoreError;

/// The most connections a store may be told to open.
const MOST_CONNECTIONS: usize = 100;

/// How a [`PostgresStore`](super::PostgresStore) is opened.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// `postgres://user:password@host:port/database`, or libpq's `host=… dbname=…`; with `sslmode` and `sslrootcert` as
    /// libpq has them.
    pub url: String,
    /// How many connections at most, beside three for showing jobs and two for notifications; 8 by default.
    pub connections: usize,
    /// How long a command waits for a database that is away before it gives up; 30 s by default.
    pub patience: Duration,
    /// How often it is looked for queues, classes, priorities and tenants that are out of use; 60 s by default.
    pub retire_every: Duration,
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
            retire_every: Duration::from_secs(60),
            clock_offset: Arc::new(AtomicI64::new(0)),
        }
    }

    /// Reads the URL.
    pub(super) fn address(&self) -> Result<Address, StoreError> {
        if self.connections < 2 || self.connections > MOST_CONNECTIONS {
            return Err(StoreError::Config(format!(
                "{} connections to the database; give between 2 and {MOST_CONNECTIONS}",
                self.connections
            )));
        }
        let Parted { rest, taken } = url_settings::part(&self.url, &["sslmode", "sslrootcert"]);
        let setting =
            |wanted: &str| taken.iter().rev().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        let mut config = Config::from_str(&rest).map_err(|error| {
            StoreError::Config(format!(
                "the database URL can't be read: {}; write it as postgres://user:password@host:5432/database",
                super::fault::describe(&error)
            ))
        })?;
        if config.get_hosts().is_empty() {
            return Err(StoreError::Config(
                "the database URL names no host; write it as postgres://user:password@host:5432/database".to_owned(),
            ));
        }
        let mode = setting("sslmode").map_or(Ok(Mode::default()), str::parse)?;
        let tls = tls::connector(mode, setting("sslrootcert"))?;
        // Sockets of this machine are never encrypted, whatever is asked for: so it is in libpq.
        let is_local = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        config.ssl_mode(if is_local { SslMode::Disable } else { mode.into() });
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
        Ok(Address { config, tls })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        PostgresOptions::new(url).address().err().expect(url).to_string()
    }

    #[test]
    fn a_url_that_cannot_work_is_refused_with_what_to_write() {
        assert!(refused("mysql://x").contains("write it as postgres://"));
        assert!(refused("postgres:///jobs").contains("names no host"));
        assert!(refused("postgres://h/jobs?sslmode=always").contains("sslmode `always`"));
        assert!(refused("postgres://h/jobs?sslcompression=1").contains("can't be read"));
        let mut options = PostgresOptions::new("postgres://h/jobs");
        options.connections = 1;
        assert!(options.address().err().expect("too few").to_string().contains("between 2 and"));
    }

    #[test]
    fn tls_is_preferred_to_hosts_and_never_used_on_sockets() {
        let mode = |url: &str| PostgresOptions::new(url).address().expect("a URL").config.get_ssl_mode();
        assert_eq!(mode("postgres://h/jobs"), SslMode::Prefer);
        assert_eq!(mode("postgres://h/jobs?sslmode=require"), SslMode::Require);
        assert_eq!(mode("host=h dbname=jobs sslmode=verify-full"), SslMode::Require);
        assert_eq!(mode("host=/run/postgresql sslmode=require"), SslMode::Disable);
    }
}
