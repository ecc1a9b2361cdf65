//! Where the server is and how to talk to it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Where the server is and how to talk to it.
#[derive(Clone)]
pub struct ClientOptions {
    /// `http://host:8080` or `https://host`; a path in front of `/api/v1` is kept, and `/api/v1` may be there or not.
    pub server_url: String,
    /// The access token, when the server wants one.
    pub token: Option<String>,
    /// A PEM file with the authorities to trust instead of the system's.
    pub ca_cert: Option<PathBuf>,
    /// How long a connection may take to come about; 5 s by default.
    pub connect_timeout: Duration,
    /// How long an ordinary call may take in all; 30 s by default. Calls that wait get this on top of their wait.
    pub timeout: Duration,
    /// For how long output that is followed tries to get back to a server that went away; 60 s by default.
    pub reconnect_for: Duration,
    /// What to call itself.
    pub user_agent: String,
}

impl ClientOptions {
    /// Defaults for the server at `server_url`.
    pub fn new(server_url: impl Into<String>) -> Self {
        Self {
            server_url: server_url.into(),
            token: None,
            ca_cert: None,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
            reconnect_for: Duration::from_secs(60),
            user_agent: concat!("executr/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    /// The same with an access token.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("server_url", &self.server_url)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("ca_cert", &self.ca_cert)
            .field("connect_timeout", &self.connect_timeout)
            .field("timeout", &self.timeout)
            .field("reconnect_for", &self.reconnect_for)
            .field("user_agent", &self.user_agent)
            .finish()
    }
}
