//! The parts of this process that serve others: a database, a coordinator on it, a listening server, a worker. `server`,
//! `executor`, `up` and `run` are made of them.

pub(crate) mod agent;
mod console_socket;
mod database;
mod kept_runs;
mod leftovers;
mod listening;
mod open_files;
mod run_directory;
mod signals;
pub(crate) mod worker;

pub(crate) use console_socket::{ConsoleSocket, call, is_beginning};
pub(crate) use database::{
    IMAGES, TREES, data_directory, make_directory, migrate, open, open_for_now, open_run, place, rules, rules_here,
};
pub(crate) use kept_runs::{ComingBack, KeptNote, KeptRun, KeptRuns, RunNote};
pub(crate) use leftovers::{Leftovers, sweepers};
pub(crate) use listening::{Listening, serve};
pub(crate) use open_files::{allow_many_open_files, jobs_limit, limit_open_files};
pub(crate) use run_directory::RunDirectory;
pub(crate) use signals::Signals;
