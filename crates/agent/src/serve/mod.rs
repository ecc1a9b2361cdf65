//! The agent as a server: the protocol `executr.agent.v1` over a Unix socket, TCP, or standard input and output.
//!
//! - `endpoint`: where it listens, and who may call;
//! - `token`: what callers over TCP have to know;
//! - `connection`: one caller's HTTP/2, and which service a call is for;
//! - `service`, `files`, `trees`: the calls themselves, each of which delegates;
//! - `hello`: whom callers speak to;
//! - `tasks`: what runs, and who follows it;
//! - `keepers`: the processes that run it;
//! - `reaper`: ends of children, and signals, as the first process of a container has to deal with them.
//!
//! One thread does all of it; file calls, which may take the kernel long, have threads of their own while they last. A task's
//! process is never a child of this one but of a keeper, so what a keeper promises holds here.

mod connection;
mod endpoint;
mod files;
mod hello;
mod keepers;
mod reaper;
mod service;
mod tasks;
mod token;
mod trees;

use std::sync::Arc;
use std::time::Duration;

use executr_agent_protocol::driver::Cgroups;
use rustix::io::Errno;
use tokio::sync::watch;

pub use endpoint::Endpoint;
pub use token::Token;

use crate::keeper::Fault;
use crate::signals;
use connection::Caller;
use hello::Facts;
use keepers::Keepers;
use reaper::{PASSED_ON, Reaper};
use service::Shared;
use tasks::Tasks;

/// How long it stays without a caller, unless told otherwise: long enough for one that has just started its container.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Threads that do file calls at once, and how long each waits for another one.
const FILE_THREADS: usize = 4;
const FILE_THREAD_REST: Duration = Duration::from_secs(2);

/// How to serve.
#[derive(Debug)]
pub struct Options {
    /// Where callers come from.
    pub endpoint: Endpoint,
    /// How long to stay without a caller and without a task.
    pub patience: Duration,
    /// Whether limits may be asked for, with control groups of this machine.
    pub cgroups: Cgroups,
}

/// Serves until nobody has called for the patience, or the only caller there can be is gone; ends what runs then. To be called
/// first thing in a process, before any thread is started: it takes over signals and children of the process.
///
/// # Errors
/// When the system makes it impossible to begin or to go on.
pub fn run(options: Options) -> Result<(), Fault> {
    let system = Fault::system;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(system("this process can't become a subreaper"))?;
    signals::reset();
    let signals = signals::descriptor(&[&[libc::SIGCHLD], &PASSED_ON[..]].concat())
        .map_err(system("no signalfd could be made"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(FILE_THREADS)
        .thread_keep_alive(FILE_THREAD_REST)
        .build()
        .map_err(|error| Fault::system("nothing can be waited for")(errno(&error)))?;
    let keepers = Arc::new(Keepers::new(options.cgroups));
    let served = runtime.block_on(async {
        let reaper = Reaper::new(signals, Arc::clone(&keepers)).map_err(system("signals can't be waited for"))?;
        serve(options, &keepers, reaper).await
    });
    // Whoever waits in them is gone.
    runtime.shutdown_background();
    keepers.close();
    served
}

async fn serve(options: Options, keepers: &Arc<Keepers>, reaper: Reaper) -> Result<(), Fault> {
    let tasks = Arc::new(Tasks::new(Arc::clone(keepers)));
    let facts = Facts::new(Arc::clone(keepers));
    let shared = Arc::new(Shared { tasks: Arc::clone(&tasks), facts });
    let (closing, closed) = watch::channel(false);
    let mut reaping = tokio::spawn(reaper.run(closing));
    let caller = Caller::new(shared);
    // Ready before anybody asks for it.
    tokio::spawn({
        let keepers = Arc::clone(keepers);
        async move { keepers.warm().await }
    });
    let served = tokio::select! {
        served = endpoint::serve(options.endpoint, &caller, &tasks, options.patience, closed) => served,
        reaped = &mut reaping => reaped.unwrap_or(Ok(())),
    };
    tasks.end_all().await;
    reaping.abort();
    served
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::INVAL)
}
