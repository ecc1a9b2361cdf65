//! The `executr` command: arguments in, pictures out.
//!
//! The one place that reads the environment, the home directory and the terminal. What it finds there it hands on; how
//! jobs are kept and run is decided in the crates below.

mod arguments;
mod commands;
mod connection;
mod errors;
mod exit;
mod host;
mod logging;
mod services;
mod show;

use std::process::ExitCode;

use crate::arguments::Arguments;
use crate::errors::Failure;

fn main() -> ExitCode {
    // Before anything else: a keeper has no runtime, no threads and no use for other arguments.
    if std::env::args_os().nth(1).is_some_and(|word| word == host::KEEPER) {
        return host::be_keeper();
    }
    let arguments = Arguments::read(std::env::args_os().collect());
    let exit = host::arm_failpoint().and_then(|()| commands::execute(arguments));
    exit.unwrap_or_else(Failure::report).into()
}
