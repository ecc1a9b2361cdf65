//! `executr executor`

use std::sync::Arc;

use executr_api::WorkerApi;
use executr_worker::{Shutdown, ShutdownHandle, Worker};

use crate::arguments::ExecutorArgs;
use crate::connection::connect_to;
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::services::{Signals, allow_many_open_files, data_directory, worker};

pub(super) async fn executor(arguments: ExecutorArgs) -> Result<Exit> {
    let signals = Signals::listen().map_err(|error| Failure::doing("listen to signals", error))?;
    allow_many_open_files();
    let client = connect_to(&arguments.server_url, &arguments.credentials)?;
    let data = data_directory(arguments.data_dir.clone())?.join("executor");
    let server = client.server().to_owned();
    let worker = worker::set_up(worker::executor_options(&arguments, &data)).await?;
    tracing::info!(server, executor_id = %worker.hello().id, slots = worker.hello().slots, "taking jobs");
    let (handle, shutdown) = ShutdownHandle::new();
    let listener = tokio::spawn(obey(signals, handle));
    let ended = work(worker, Arc::new(client), shutdown).await;
    listener.abort();
    ended.map(|()| Exit::SUCCESS)
}

/// Runs the worker to its end.
pub(super) async fn work(worker: Worker, api: Arc<dyn WorkerApi>, shutdown: Shutdown) -> Result<()> {
    let summary = worker.run(api, shutdown).await.map_err(worker::failure)?;
    tracing::info!(
        started = summary.started,
        succeeded = summary.succeeded,
        failed = summary.failed,
        cancelled = summary.cancelled,
        undelivered = summary.undelivered,
        "the executor has ended"
    );
    Ok(())
}

/// The first signal drains, the second ends the jobs.
async fn obey(mut signals: Signals, handle: ShutdownHandle) {
    signals.next().await;
    tracing::info!("draining: running jobs are finished, no more are taken; a second signal ends them");
    handle.drain();
    signals.next().await;
    tracing::info!("ending running jobs");
    handle.end_jobs();
}
