//! The `executr` command: arguments in, pictures out.
//!
//! The one place that reads the environment, the home directory and the terminal. What it finds there it hands on; how
//! jobs are kept and run is decided in the crates below.

mod arguments;
mod commands;
mod connection;
mod errors;
mod exit;
mod logging;
mod show;

use std::process::ExitCode;

use clap::Parser as _;

use crate::arguments::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    commands::execute(arguments).unwrap_or_else(errors::Failure::report).into()
}
