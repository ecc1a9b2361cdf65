//! What an operator may set.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

/// How to serve.
#[derive(Debug)]
pub struct ServerOptions {
    /// Where to listen; already bound, so that it is known where before anything else starts.
    pub listener: TcpListener,
    /// Speak TLS with these; plain HTTP when `None`.
    pub tls: Option<TlsFiles>,
    /// Whether everybody may do everything as long as no token exists.
    pub allow_anonymous: bool,
    /// Bounds on what one request may take.
    pub limits: Limits,
}

impl ServerOptions {
    /// Plain HTTP with default bounds and no anonymous access.
    #[must_use]
    pub fn new(listener: TcpListener) -> Self {
        Self { listener, tls: None, allow_anonymous: false, limits: Limits::default() }
    }
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// A PEM file with the certificate and those between it and its authority (`--tls-cert`).
    pub cert: PathBuf,
    /// A PEM file with its private key (`--tls-key`).
    pub key: PathBuf,
}

/// Bounds, so that no client can take the server from the others. Sizes are in bytes.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections open at a time; more wait to be accepted.
    pub connections: usize,
    /// How long a connection may take to send a request's head, or stay idle between two.
    pub header_time: Duration,
    /// How long a TLS handshake may take.
    pub handshake_time: Duration,
    /// How long an ordinary request may take, its body included.
    pub request_time: Duration,
    /// How long a bulk request may take, its body included.
    pub bulk_time: Duration,
    /// The longest that `wait`, `timeout` and the like may ask for; longer wishes are cut to it.
    pub wait_time: Duration,
    /// How long a blob on its way in, or an answer on its way out, may stand still.
    pub stall_time: Duration,
    /// How often a stream without news says that it is alive.
    pub keep_alive: Duration,
    /// How long nobody may type or see anything in a console before it is ended.
    pub console_idle: Duration,
    /// How long requests may go on after the server was told to stop.
    pub shutdown_time: Duration,
    /// A body of JSON.
    pub json: usize,
    /// A body of JSON that carries output: an exchange, or the result of the original's executor.
    pub results: usize,
    /// A bulk submission or cancellation.
    pub bulk: usize,
    /// All bulk bodies being handled at a time; more wait, and a larger one is handled alone. Read, jobs take several
    /// times the memory that they take in JSON.
    pub bulk_together: usize,
    /// Output appended by one request.
    pub output: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8_192,
            header_time: Duration::from_secs(60),
            handshake_time: Duration::from_secs(10),
            request_time: Duration::from_secs(30),
            bulk_time: Duration::from_secs(120),
            wait_time: Duration::from_secs(60),
            stall_time: Duration::from_secs(60),
            keep_alive: Duration::from_secs(15),
            console_idle: Duration::from_secs(4 * 3_600),
            shutdown_time: Duration::from_secs(10),
            json: 1 << 20,
            results: 16 << 20,
            bulk: 64 << 20,
            bulk_together: 8 << 20,
            output: 8 << 20,
        }
    }
}
