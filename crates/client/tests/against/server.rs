//! A server in the test's own process, on a store in memory.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use executr_client::{ClientOptions, HttpClient};
use executr_coordinator::{Coordinator, Options};
use executr_server::{Metrics, ServerOptions, TlsFiles, serve};
use executr_store::SystemClock;
use executr_store::model::ModelStore;
use tokio_util::sync::CancellationToken;

/// No test waits longer for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running server; it stops when the test ends.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) stop: CancellationToken,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with_tls(None).await
    }

    pub(crate) async fn with_tls(tls: Option<TlsFiles>) -> Self {
        let metrics = Arc::new(Metrics::new());
        let store = Arc::new(ModelStore::new(Arc::new(SystemClock)));
        let coordinator = Coordinator::start(store, Options::default(), metrics.clone()).await.unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let options = ServerOptions { tls, allow_anonymous: true, ..ServerOptions::new(listener) };
        let stop = CancellationToken::new();
        tokio::spawn(serve(coordinator, metrics, options, stop.clone().cancelled_owned()));
        Self { address, stop }
    }

    pub(crate) fn client(&self) -> HttpClient {
        client_of(self.address)
    }
}

pub(crate) fn client_of(address: SocketAddr) -> HttpClient {
    HttpClient::new(ClientOptions::new(format!("http://{address}"))).unwrap()
}
