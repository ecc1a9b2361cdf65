//! `executr up`

use std::io::{self, Write as _};
use std::sync::Arc;

use executr_coordinator::Coordinator;
use executr_server::Metrics;
use executr_worker::ShutdownHandle;
use tokio::sync::oneshot;

use super::executor::work;
use crate::arguments::{DEFAULT_SERVER, UpArgs};
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::services::{Listening, Signals, allow_many_open_files, data_directory, open, place, rules, serve, worker};
use crate::show::{Ink, Paint};

pub(super) async fn up(arguments: UpArgs) -> Result<Exit> {
    let mut signals = Signals::listen().map_err(|error| Failure::doing("listen to signals", error))?;
    allow_many_open_files();
    let store = open(&place(&arguments.database)?).await?;
    let metrics = Arc::new(Metrics::new());
    let told = |error| Failure::api(&error, None);
    let coordinator = Coordinator::start(store, rules(&arguments.rules), metrics.clone()).await.map_err(told)?;
    let has_tokens = coordinator.has_tokens().await.map_err(told)?;
    let listening = Listening::bind(&arguments.listening, None, has_tokens)?;

    let slots = arguments.max_jobs.unwrap_or_else(worker::processors);
    let data = data_directory(arguments.database.data_dir.clone())?.join("executor");
    let options = worker::options(&arguments.name, slots, &arguments.choices, &data);
    let worker = worker::set_up(options).await?;

    let url = listening.url();
    listening.tell_port(&arguments.listening)?;
    let (stop_serving, stopped) = oneshot::channel::<()>();
    let api = Arc::new(coordinator.clone());
    let mut serving = tokio::spawn(serve(coordinator, metrics, listening, async {
        // Whoever holds the other end and goes means the same.
        drop(stopped.await);
    }));
    greet(&url, slots)?;

    let (handle, shutdown) = ShutdownHandle::new();
    let working = work(worker, api, shutdown);
    tokio::pin!(working);
    let mut served = None;
    let told = async {
        tokio::select! {
            () = signals.next() => None,
            served = &mut serving => Some(served),
        }
    };
    let worked = tokio::select! {
        worked = &mut working => worked,
        ended = told => {
            served = ended;
            let text = match &served {
                None => "finishing running jobs; once more to end them",
                Some(_) => "the server ended, so nobody can submit jobs: finishing running jobs; Ctrl-C to end them",
            };
            drop(writeln!(io::stderr(), "{text}"));
            handle.drain();
            tokio::select! {
                worked = &mut working => worked,
                () = signals.next() => {
                    handle.end_jobs();
                    working.await
                }
            }
        }
    };
    // The server goes last: it takes the last results.
    drop(stop_serving);
    let served = match served {
        Some(served) => served,
        None => serving.await,
    };
    let served = served.unwrap_or_else(|error| Err(Failure::doing("serve", error)));
    worked.and(served).map(|()| Exit::SUCCESS)
}

/// Says where it listens, and one line to try.
fn greet(url: &str, slots: u32) -> io::Result<()> {
    let flag = if url == DEFAULT_SERVER { String::new() } else { format!(" --server-url {url}") };
    let ink = Ink::for_stdout();
    let jobs = if slots == 1 { "one job".to_owned() } else { format!("{slots} jobs") };
    let mut out = io::stdout().lock();
    writeln!(out, "Executr listens at {} and runs {jobs} at a time. Ctrl-C stops it.", ink.paint(Paint::Heading, url))?;
    writeln!(
        out,
        "In another terminal: {}",
        ink.paint(Paint::Good, &format!("executr submit{flag} --wait -- echo hello"))
    )?;
    out.flush()
}
