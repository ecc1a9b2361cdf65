//! Accepting connections, and stopping.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use executr_coordinator::Coordinator;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::{App, BULK_UNIT};
use crate::connection::Connections;
use crate::error::ServerError;
use crate::metrics::Metrics;
use crate::options::ServerOptions;
use crate::{openapi, routes, tls};

/// How long to wait after the system refused a connection for lack of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `coordinator` until `stop` is done, then lets running requests finish, for a bounded time, and returns. Held
/// exchanges are answered at once. The coordinator is shut down with it.
///
/// `metrics` are those that the coordinator was started with.
///
/// # Errors
/// When it can't start: TLS files that can't be used, a listener that can't be polled.
pub async fn serve(
    coordinator: Coordinator,
    metrics: Arc<Metrics>,
    options: ServerOptions,
    stop: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    let acceptor = options.tls.as_ref().map(tls::acceptor).transpose()?;
    options.listener.set_nonblocking(true).map_err(ServerError::Listen)?;
    let on_loopback = options.listener.local_addr().map_err(ServerError::Listen)?.ip().is_loopback();
    let listener = TcpListener::from_std(options.listener).map_err(ServerError::Listen)?;

    let limits = options.limits;
    let stopping = CancellationToken::new();
    let tracker = TaskTracker::new();
    let app = Arc::new(App {
        bulk: Arc::new(Semaphore::new(limits.bulk_together.div_ceil(BULK_UNIT))),
        coordinator: coordinator.clone(),
        metrics,
        limits: limits.clone(),
        allow_anonymous: options.allow_anonymous,
        on_loopback,
        stopping: stopping.clone(),
        tracker: tracker.clone(),
        openapi: openapi::json().into(),
    });
    let connections = Arc::new(Connections::new(routes::router(&app), acceptor, limits.clone(), stopping.clone()));
    let places = Arc::new(Semaphore::new(limits.connections));

    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, place)) => {
                let connections = connections.clone();
                tracker.spawn(async move {
                    connections.serve(stream).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Too many open files, most likely: what is open goes on, and closes in time.
                tracing::warn!(%error, "a connection can't be accepted; raise the limit of open files");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    drop(listener);
    tracker.close();
    stopping.cancel();
    coordinator.shutdown().await;
    if tokio::time::timeout(limits.shutdown_time, tracker.wait()).await.is_err() {
        tracing::warn!(connections = tracker.len(), "some requests didn't finish in time and are broken off");
        connections.break_off();
        tracker.wait().await;
    }
    Ok(())
}

/// The next connection, once there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}
