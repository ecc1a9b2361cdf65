//! From flags to a client of a server.

use std::path::Path;

use executr_client::{ClientOptions, HttpClient};

use crate::arguments::{ConnectionArgs, CredentialArgs, TokenSource};
use crate::errors::{Failure, Result};
use crate::exit::Exit;

/// A client of the server that the flags name. Nothing is sent yet.
pub(crate) fn connect(arguments: &ConnectionArgs) -> Result<HttpClient> {
    connect_to(&arguments.server_url, &arguments.credentials)
}

/// A client of the server at `server_url`. Nothing is sent yet.
pub(crate) fn connect_to(server_url: &str, credentials: &CredentialArgs) -> Result<HttpClient> {
    let mut options = ClientOptions::new(server_url);
    options.token = match &credentials.token {
        TokenSource::None => None,
        TokenSource::Given(token) => Some(token.trim().to_owned()),
        TokenSource::File(path) => Some(token_in(path)?),
    };
    options.ca_cert.clone_from(&credentials.ca_cert);
    HttpClient::new(options).map_err(|error| Failure::api(&error, None))
}

fn token_in(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::doing(format!("read the token in {}", path.display()), error))?;
    match text.trim() {
        "" => Err(Failure::new(Exit::USAGE, format!("there is no token in {}", path.display()))
            .remedy("write one there as `executr token create` prints it")),
        token => Ok(token.to_owned()),
    }
}
