//! `executr server`, and what `up` and the commands that open a database share with it.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use executr_spec::Span;

use super::values;
use crate::errors::{Failure, Result};

/// Where in a data directory the queue's database is.
pub(crate) const QUEUE: &str = "queue";

/// `executr server`
#[derive(Debug, Args)]
#[command(
    about = "Start a server",
    long_about = "Starts a server: the queue behind an HTTP interface. Executors and commands find it at --host and \
        --port. It may be killed at any moment; what it had accepted is on disk.\n\n\
        As long as there is no access token everybody who reaches the server may do everything, so it listens on the \
        loopback address only.",
    after_help = "Examples:
  executr server
  executr server --db-url postgres://executr:secret@db/executr --host 0.0.0.0
  executr server --data-dir /var/lib/executr --tls-cert server.pem --tls-key server.key"
)]
pub(crate) struct ServerArgs {
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    #[command(flatten)]
    pub(crate) rules: QueueRules,
    #[command(flatten)]
    pub(crate) listening: ListeningArgs,
    /// Serve HTTPS with this certificate chain (PEM)
    #[arg(long, env = "EXECUTR_TLS_CERT", value_name = "FILE", requires = "tls_key", value_hint = ValueHint::FilePath)]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's key (PEM)
    #[arg(long, env = "EXECUTR_TLS_KEY", value_name = "FILE", requires = "tls_cert", value_hint = ValueHint::FilePath)]
    pub(crate) tls_key: Option<PathBuf>,
}

/// Which database.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Database")]
pub(crate) struct DatabaseArgs {
    /// A PostgreSQL database, or `sqlite:DIR` for the embedded one there. By default the embedded one in --data-dir
    #[arg(long, env = "EXECUTR_DB_URL", value_name = "URL", hide_env_values = true)]
    pub(crate) db_url: Option<String>,
    /// Where data is kept. By default `executr` in $XDG_STATE_HOME, else in ~/.local/state
    #[arg(long, env = "EXECUTR_DATA_DIR", value_name = "DIR", value_parser = values::path)]
    pub(crate) data_dir: Option<PathBuf>,
}

/// Where a database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DatabasePlace {
    /// A PostgreSQL database.
    Postgres(String),
    /// The embedded database of this directory.
    Embedded(PathBuf),
}

impl DatabaseArgs {
    /// Whether a database is named at all.
    pub(crate) fn is_given(&self) -> bool {
        self.db_url.is_some() || self.data_dir.is_some()
    }

    /// The database, or that of `default` when none is named.
    pub(crate) fn place(&self, default: impl FnOnce() -> Result<PathBuf>) -> Result<DatabasePlace> {
        let Some(url) = &self.db_url else {
            let directory = self.data_dir.as_ref().map(|data| Ok(data.join(QUEUE)));
            return directory.unwrap_or_else(default).map(DatabasePlace::Embedded);
        };
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(DatabasePlace::Postgres(url.clone()));
        }
        let directory = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"));
        // Without a scheme it can only be a directory.
        let directory = directory.or_else(|| (!url.contains("://")).then_some(url));
        match directory {
            Some(directory) if !directory.is_empty() => {
                values::path(directory).map(DatabasePlace::Embedded).map_err(Failure::usage)
            }
            // The whole of it may hold a password.
            _ => Err(Failure::usage(format!(
                "--db-url: `{}` is no database; write postgres://USER:PASSWORD@HOST/NAME or sqlite:DIR",
                url.split(':').next().unwrap_or_default()
            ))),
        }
    }
}

/// How the queue is kept.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Queue")]
pub(crate) struct QueueRules {
    /// How often finished jobs, runs and artifacts past their retention are looked for
    #[arg(long, env = "EXECUTR_CLEANUP_INTERVAL", value_name = "DURATION", default_value = "1h")]
    pub(crate) cleanup_interval: Span,
    /// How long finished jobs and runs are kept
    #[arg(long, env = "EXECUTR_JOB_RETENTION", value_name = "DURATION", default_value = "48h")]
    pub(crate) job_retention: Span,
    /// How long the artifacts of runs are kept
    #[arg(long, env = "EXECUTR_ARTIFACT_RETENTION", value_name = "DURATION", default_value = "30d")]
    pub(crate) artifact_retention: Span,
    /// A lease: after so long without its executor a job may be taken by another
    #[arg(long, env = "EXECUTR_HEARTBEAT_TIMEOUT", value_name = "DURATION", default_value = "15s")]
    pub(crate) heartbeat_timeout: Span,
    /// Bytes of output in a job's `stdout` and `stderr` fields; what is longer is shortened there, not in its log
    #[arg(long, env = "EXECUTR_MAX_OUTPUT_SIZE", value_name = "BYTES", default_value_t = 1_048_576)]
    pub(crate) max_output_size: u64,
}

/// Where to listen.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Listening")]
pub(crate) struct ListeningArgs {
    /// The address to listen on. By default 127.0.0.1, and all addresses once there is an access token
    #[arg(long, env = "EXECUTR_HOST", value_name = "ADDRESS", value_parser = address)]
    pub(crate) host: Option<IpAddr>,
    /// The port to listen on; 0 for any that is free
    #[arg(long, env = "EXECUTR_PORT", default_value_t = 8080)]
    pub(crate) port: u16,
    /// Write the port to this file once the server listens
    #[arg(long, env = "EXECUTR_PORT_FILE", value_name = "FILE")]
    pub(crate) port_file: Option<PathBuf>,
    /// Serve other machines without any access token: whoever reaches the server may run programs
    #[arg(long, env = "EXECUTR_INSECURE_NO_TOKENS")]
    pub(crate) insecure_no_tokens: bool,
}

fn address(text: &str) -> std::result::Result<IpAddr, String> {
    match text {
        "localhost" => Ok(IpAddr::from([127, 0, 0, 1])),
        text => text.parse().map_err(|_| "write an IP address, such as 127.0.0.1, 0.0.0.0 or ::".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(db_url: Option<&str>, data_dir: Option<&str>) -> std::result::Result<DatabasePlace, String> {
        let arguments = DatabaseArgs { db_url: db_url.map(str::to_owned), data_dir: data_dir.map(PathBuf::from) };
        arguments.place(|| Ok(PathBuf::from("/state/queue"))).map_err(|failure| match failure {
            Failure::Told { problem, .. } => problem,
            Failure::OutputClosed => String::new(),
        })
    }

    #[test]
    fn a_database_is_postgresql_or_a_directory() {
        let embedded = |path: &str| Ok(DatabasePlace::Embedded(PathBuf::from(path)));
        assert_eq!(place(None, None), embedded("/state/queue"));
        assert_eq!(place(None, Some("/d")), embedded("/d/queue"));
        assert_eq!(place(Some("sqlite:/d"), None), embedded("/d"));
        assert_eq!(place(Some("sqlite:///d"), None), embedded("/d"));
        assert_eq!(place(Some("data"), None), embedded("data"));
        let url = "postgres://a:secret@h/d";
        assert_eq!(place(Some(url), Some("/d")), Ok(DatabasePlace::Postgres(url.to_owned())));
    }

    #[test]
    fn a_refused_url_is_not_repeated_with_its_password() {
        let refusal = place(Some("mysql://a:secret@h/d"), None).expect_err("no such database");
        assert!(refusal.contains("mysql") && !refusal.contains("secret"), "{refusal}");
        assert!(place(Some("sqlite:"), None).is_err());
    }
}
