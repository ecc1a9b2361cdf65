//! `exec`: a command in a job's sandbox.

use std::path::PathBuf;

use clap::Args;

use super::connection::ConnectionArgs;
use super::values;

/// `executr exec`
#[derive(Debug, Args)]
#[command(
    about = "Run a command, or a shell, in the sandbox of a running or kept job",
    long_about = "Runs a command in the sandbox of a job that is running, beside its steps: in its directory, with the \
        environment of its current step. Without a command it is a shell. Jobs of `executr run FILE` in another \
        process are found by name, those of a server by id; of a run that is over and kept its directories \
        (`executr run --keep`) it is the kept directory. The exit code is the command's. It ends when the job does.",
    after_help = "Examples:
  executr exec build
  executr exec build -- ls -l
  executr exec 01890a5d-ac96-774b-bcce-b302099a8057 -- sh
  executr exec 01890a5d test -- env
  tar -c src | executr exec build -- tar -x"
)]
pub(crate) struct ExecArgs {
    /// The job: its id or the beginning of it, or its name in a run; before a name may stand the run
    #[arg(required = true, num_args = 1..=2, value_names = ["[RUN] JOB"])]
    pub(crate) target: Vec<String>,
    /// The program and its arguments; a shell that is there by default
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
    /// Give it a terminal; by default it has one when standard input and output are one
    #[arg(short, long, overrides_with = "no_terminal")]
    pub(crate) terminal: bool,
    /// Give it pipes: bytes pass exactly as they are, standard error apart
    #[arg(long)]
    pub(crate) no_terminal: bool,
    /// Only jobs of `executr run` on this machine
    #[arg(long)]
    pub(crate) here: bool,
    /// Where runs of this machine are kept
    #[arg(long, env = "EXECUTR_DATA_DIR", value_name = "DIR", value_parser = values::path)]
    pub(crate) data_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}
