//! What each command does: it reads its flags, asks the coordinator (near or far) and shows the answer. What jobs are and
//! how they run is decided elsewhere.

mod cancel;
mod clean;
mod completions;
mod digest;
mod doctor;
mod exec;
mod executor;
mod executors;
mod follow;
mod image;
mod list;
mod logs;
mod look;
mod migrate;
mod run;
mod server;
mod stats;
mod status;
mod submission;
mod submit;
mod token;
mod up;
mod upload;
mod wait;
mod workflow;

use tokio::runtime::Builder;

use crate::arguments::{Arguments, Command, LogLevel};
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::logging;

/// Does what was asked for.
pub(crate) fn execute(arguments: Arguments) -> Result<Exit> {
    let Arguments { logging, command } = arguments;
    logging::start(&logging, usual_level(&command));
    match command {
        Command::Run(arguments) if arguments.is_workflow => here(run::workflow(*arguments)),
        Command::Run(arguments) => here(run::run(*arguments)),
        Command::Up(arguments) => everywhere(up::up(*arguments)),
        Command::Server(arguments) => everywhere(server::server(*arguments)),
        Command::Executor(arguments) => everywhere(executor::executor(*arguments)),
        Command::Submit(arguments) => here(submit::submit(*arguments)),
        Command::List(arguments) => here(list::list(arguments)),
        Command::Status(arguments) => here(status::status(arguments)),
        Command::Exec(arguments) => here(exec::exec(*arguments)),
        Command::Logs(arguments) => here(logs::logs(arguments)),
        Command::Cancel(arguments) => here(cancel::cancel(arguments)),
        Command::Wait(arguments) => here(wait::wait(arguments)),
        Command::Check(arguments) => look::check(&arguments),
        Command::Graph(arguments) => look::graph(&arguments),
        Command::Schema(_) => look::schema(),
        Command::Runs(arguments) => here(workflow::runs::runs(*arguments)),
        Command::Rerun(arguments) => everywhere(workflow::rerun::rerun(*arguments)),
        Command::Artifacts(arguments) => here(workflow::artifacts::artifacts(arguments.command)),
        Command::Stats(arguments) => here(stats::stats(arguments)),
        Command::Executors(arguments) => here(executors::executors(arguments)),
        Command::Token(arguments) => here(token::token(arguments.command)),
        Command::Migrate(arguments) => here(migrate::migrate(&arguments.database)),
        Command::Image(arguments) => everywhere(image::image(arguments.command)),
        Command::Doctor(arguments) => here(doctor::doctor(arguments)),
        Command::Clean(arguments) => here(clean::clean(arguments)),
        Command::Completions(arguments) => completions::completions(arguments.shell),
    }
}

/// The least important messages of a command that isn't told which to write.
fn usual_level(command: &Command) -> Option<LogLevel> {
    match command {
        Command::Server(_) | Command::Executor(_) => Some(LogLevel::Info),
        // It speaks to a person already.
        Command::Up(_) => Some(LogLevel::Warn),
        _ => None,
    }
}

/// Runs a command on this thread: it mostly waits, and starting more threads takes longer than most commands.
fn here(command: impl Future<Output = Result<Exit>>) -> Result<Exit> {
    block_on(Builder::new_current_thread(), command)
}

/// Runs a command that serves others on all processors.
fn everywhere(command: impl Future<Output = Result<Exit>>) -> Result<Exit> {
    block_on(Builder::new_multi_thread(), command)
}

fn block_on(mut builder: Builder, command: impl Future<Output = Result<Exit>>) -> Result<Exit> {
    let runtime = builder.enable_all().build().map_err(|error| Failure::doing("start", error))?;
    let result = runtime.block_on(command);
    // A thread may still hang in a write to a terminal that nobody reads.
    runtime.shutdown_background();
    result
}
