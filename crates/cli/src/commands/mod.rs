//! What each command does: it reads its flags, asks the coordinator (near or far) and shows the answer. What jobs are and
//! how they run is decided elsewhere.

mod cancel;
mod completions;
mod digest;
mod executors;
mod follow;
mod list;
mod logs;
mod stats;
mod status;
mod submission;
mod submit;
mod token;
mod upload;
mod wait;

use std::future::Future;

use crate::arguments::{Arguments, Command};
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::logging;

/// Does what was asked for.
pub(crate) fn execute(arguments: Arguments) -> Result<Exit> {
    let Arguments { logging, command } = arguments;
    logging::start(&logging, None);
    match command {
        Command::Submit(arguments) => block_on(submit::submit(*arguments)),
        Command::List(arguments) => block_on(list::list(arguments)),
        Command::Status(arguments) => block_on(status::status(arguments)),
        Command::Logs(arguments) => block_on(logs::logs(arguments)),
        Command::Cancel(arguments) => block_on(cancel::cancel(arguments)),
        Command::Wait(arguments) => block_on(wait::wait(arguments)),
        Command::Stats(arguments) => block_on(stats::stats(arguments)),
        Command::Executors(arguments) => block_on(executors::executors(arguments)),
        Command::Token(arguments) => block_on(token::token(arguments.command)),
        Command::Completions(arguments) => completions::completions(arguments.shell),
    }
}

/// Runs a command on this thread alone: it mostly waits, and starting more threads takes longer than most commands.
fn block_on(command: impl Future<Output = Result<Exit>>) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::doing("start", error))?;
    let result = runtime.block_on(command);
    // A thread may still hang in a write to a terminal that nobody reads.
    runtime.shutdown_background();
    result
}
