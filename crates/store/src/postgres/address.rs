//! Where the database is, and how one gets through to it.

use std::error::Error as _;

use tokio_postgres::config::Host;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::fault::{Fault, describe};
use crate::StoreError;

/// A connection's side that has to be polled.
pub(super) type Line = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// A database.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) config: Config,
    pub(super) tls: MakeRustlsConnect,
}

impl Address {
    /// Opens a connection; whoever has it polls its line.
    pub(super) async fn connect(&self) -> Result<(Client, Line), Fault> {
        self.config.connect(self.tls.clone()).await.map_err(|error| connect_fault(&self.config, &error))
    }

    /// Opens a connection whose line is polled by a task of its own.
    pub(super) async fn client(&self) -> Result<Client, Fault> {
        let (client, line) = self.connect().await?;
        tokio::spawn(async move {
            if let Err(error) = line.await {
                tracing::debug!(error = %describe(&error), "a connection to the database ended");
            }
        });
        Ok(client)
    }

    /// The host and port in words, for errors; never the password.
    pub(super) fn place(&self) -> String {
        place(&self.config)
    }
}

fn place(config: &Config) -> String {
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

/// Says what to check when there is no connection; decides whether waiting could help.
fn connect_fault(config: &Config, error: &tokio_postgres::Error) -> Fault {
    let place = place(config);
    let user = config.get_user().unwrap_or("(none)");
    let name = config.get_dbname().unwrap_or(user);
    let told = describe(error);
    let refuse = |text: String| Fault::Refused(StoreError::Config(text));
    match error.code() {
        Some(code) if *code == SqlState::INVALID_PASSWORD || *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            refuse(format!(
                "the database at {place} refuses the user `{user}`: {told}; check user and password in the database URL, and pg_hba.conf"
            ))
        }
        Some(code) if *code == SqlState::INVALID_CATALOG_NAME => {
            refuse(format!("there is no database `{name}` at {place}; create it with: createdb {name}"))
        }
        Some(_) => match Fault::from_code(error) {
            Some(fault) => fault,
            None => refuse(format!("the database at {place} refuses the connection: {told}")),
        },
        None if config.get_password().is_none() && told.contains("password") => refuse(format!(
            "the database at {place} asks for a password; put it into the URL: postgres://{user}:PASSWORD@…"
        )),
        None if told.contains("does not support TLS") => refuse(format!(
            "the database at {place} does not speak TLS, which sslmode asks for; set ssl = on in its postgresql.conf, or write sslmode=disable on a network that is your own"
        )),
        None => match certificate_error(error) {
            Some(why) => refuse(format!(
                "the certificate of the database at {place} is not trusted: {why}; name the authority that it comes from with sslrootcert=FILE in the database URL, and the host as the certificate does"
            )),
            None => Fault::Lost(format!(
                "no connection to PostgreSQL at {place} ({told}); check that it runs there and that host, port and firewall are right"
            )),
        },
    }
}

/// What is wrong with the server's certificate, if that is the error.
fn certificate_error(error: &tokio_postgres::Error) -> Option<String> {
    let source = error.source()?.downcast_ref::<std::io::Error>()?;
    match source.get_ref()?.downcast_ref::<rustls::Error>()? {
        error @ rustls::Error::InvalidCertificate(_) => Some(error.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::PostgresOptions;

    #[test]
    fn errors_name_the_place_without_the_password() {
        let at = |url: &str| PostgresOptions::new(url).address().expect("a URL").place();
        assert_eq!(at("postgres://me:secret@db.example:6543/jobs"), "db.example:6543");
        assert_eq!(at("host=/run/postgresql dbname=jobs"), "/run/postgresql (port 5432)");
    }
}
