//! `executr server`

use std::sync::Arc;

use executr_coordinator::Coordinator;
use executr_server::{Metrics, TlsFiles};
use tokio::sync::oneshot;

use crate::arguments::ServerArgs;
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::services::{Listening, Signals, allow_many_open_files, open, place, rules, serve};

pub(super) async fn server(arguments: ServerArgs) -> Result<Exit> {
    let mut signals = Signals::listen().map_err(|error| Failure::doing("listen to signals", error))?;
    allow_many_open_files();
    let store = open(&place(&arguments.database)?).await?;
    let metrics = Arc::new(Metrics::new());
    let coordinator = Coordinator::start(store, rules(&arguments.rules), metrics.clone())
        .await
        .map_err(|error| Failure::api(&error, None))?;
    let has_tokens = coordinator.has_tokens().await.map_err(|error| Failure::api(&error, None))?;
    let tls = arguments.tls_cert.zip(arguments.tls_key).map(|(cert, key)| TlsFiles { cert, key });
    let listening = Listening::bind(&arguments.listening, tls, has_tokens)?;
    listening.tell_port(&arguments.listening)?;
    tracing::info!(url = listening.url(), "serving");
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = serve(coordinator, metrics, listening, async {
        // Whoever holds the other end and goes means the same.
        drop(stopped.await);
    });
    tokio::pin!(serving);
    tokio::select! {
        served = &mut serving => served?,
        () = signals.next() => {
            tracing::info!("stopping: running requests are finished first; a second signal doesn't wait for them");
            drop(stop);
            tokio::select! {
                served = &mut serving => served?,
                () = signals.next() => {}
            }
        }
    }
    Ok(Exit::SUCCESS)
}
