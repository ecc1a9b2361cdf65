//! What belongs to workflows: the flags of `run` and `submit` for a file, and the commands about runs.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use executr_spec::RunId;

use super::connection::ConnectionArgs;
use super::values::{self, OutputForm};
use crate::show::run::FormatName;

/// How a workflow is run, here or there.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Workflows")]
pub(crate) struct WorkflowArgs {
    /// Say what would run, in which order, and run nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Run only the named jobs, without the jobs they need
    #[arg(long)]
    pub(crate) no_needs: bool,
    /// Go on with what doesn't need a job that failed: --fail-fast=false
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(crate) fail_fast: Option<bool>,
    /// Variables for all jobs from a file of NAME=value lines; repeatable, a later one wins, --env over all. They are kept
    /// and shown with the run, as --env is; for what must not be seen there is --secret
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) env_file: Vec<PathBuf>,
    /// A secret for all jobs: a variable of the machine where they run, masked in all output; repeatable
    #[arg(long, value_name = "NAME")]
    pub(crate) secret: Vec<String>,
    /// How lines look: simple, structured or json. By default a live picture on a terminal, simple lines in a pipe
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<FormatName>,
}

/// The part of them that makes sense only where the command's own process runs the jobs.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Workflows")]
pub(crate) struct WorkflowHereArgs {
    /// At most so many jobs at a time; by default as many as there are processors
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) jobs: Option<u32>,
    /// Leave the jobs' directories where they can be looked at, and say where that is
    #[arg(long)]
    pub(crate) keep: bool,
    /// Go on with a run that died with its process; the last one of this file unless an id is given
    #[arg(long, value_name = "RUN", num_args = 0..=1, require_equals = true, value_parser = values::run_id)]
    #[expect(clippy::option_option, reason = "the flag may be absent, bare, or have a value")]
    pub(crate) resume: Option<Option<RunId>>,
}

/// `executr runs`
#[derive(Debug, Args)]
#[command(
    about = "List runs, or show one",
    after_help = "Examples:
  executr runs
  executr runs --here
  executr runs 01890a5d-ac96-774b-bcce-b302099a8057 --output json"
)]
pub(crate) struct RunsArgs {
    /// Show this run with its jobs
    #[arg(value_parser = values::run_id)]
    pub(crate) id: Option<RunId>,
    /// Runs of `executr run` on this machine, instead of a server's
    #[arg(long)]
    pub(crate) here: bool,
    /// Only runs of this workflow
    #[arg(long, value_name = "WORKFLOW")]
    pub(crate) name: Option<String>,
    /// At most so many
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    pub(crate) limit: u32,
    /// Cancel the run
    #[arg(long, requires = "id")]
    pub(crate) cancel: bool,
    /// With --cancel: at once. What runs is killed, jobs and steps with always() or cancelled() don't run; also when the
    /// run was cancelled before
    #[arg(long, requires = "cancel")]
    pub(crate) now: bool,
    /// Show the run as it goes on, until its end
    #[arg(long, short, requires = "id")]
    pub(crate) follow: bool,
    /// How lines look with --follow
    #[arg(long, value_name = "FORMAT", requires = "follow")]
    pub(crate) format: Option<FormatName>,
    /// How to show the answer
    #[arg(long, env = "EXECUTR_OUTPUT", value_name = "FORM", default_value = "table")]
    pub(crate) output: OutputForm,
    /// Where runs of this machine are kept
    #[arg(long, env = "EXECUTR_DATA_DIR", value_name = "DIR", value_parser = values::path)]
    pub(crate) data_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// `executr rerun`
#[derive(Debug, Args)]
#[command(
    about = "Repeat a run, all of it or what did not succeed",
    after_help = "Examples:
  executr rerun 01890a5d-ac96-774b-bcce-b302099a8057
  executr rerun 01890a5d-ac96-774b-bcce-b302099a8057 --failed --wait"
)]
pub(crate) struct RerunArgs {
    /// The run
    #[arg(value_parser = values::run_id)]
    pub(crate) id: RunId,
    /// It was run by `executr run` on this machine. Found out by itself when its id is known here
    #[arg(long)]
    pub(crate) here: bool,
    /// Where runs of this machine are kept
    #[arg(long, env = "EXECUTR_DATA_DIR", value_name = "DIR", value_parser = values::path)]
    pub(crate) data_dir: Option<PathBuf>,
    /// Only the jobs that did not succeed, and what comes after them; the others' artifacts are taken over
    #[arg(long)]
    pub(crate) failed: bool,
    /// Show the new run as it goes on and exit as it ends
    #[arg(long)]
    pub(crate) wait: bool,
    /// How lines look with --wait
    #[arg(long, value_name = "FORMAT", requires = "wait")]
    pub(crate) format: Option<FormatName>,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// `executr artifacts`
#[derive(Debug, Args)]
#[command(
    about = "List or get what runs have made",
    after_help = "Examples:
  executr artifacts list 01890a5d-ac96-774b-bcce-b302099a8057
  executr artifacts get 01890a5d-ac96-774b-bcce-b302099a8057 dist
  executr artifacts get 01890a5d-ac96-774b-bcce-b302099a8057 dist --tar dist.tar.zst"
)]
pub(crate) struct ArtifactsArgs {
    #[command(subcommand)]
    pub(crate) command: ArtifactsCommand,
}

/// What to do with artifacts.
#[derive(Debug, Subcommand)]
pub(crate) enum ArtifactsCommand {
    /// List them
    #[command(after_help = "Examples:\n  executr artifacts list\n  executr artifacts list --here")]
    List {
        /// Only those of this run
        #[arg(value_parser = values::run_id)]
        run: Option<RunId>,
        /// How to show the answer
        #[arg(long, env = "EXECUTR_OUTPUT", value_name = "FORM", default_value = "table")]
        output: OutputForm,
        #[command(flatten)]
        place: ArtifactPlace,
    },
    /// Write one into a directory, or as an archive
    #[command(after_help = "Examples:\n  executr artifacts get 01890a5d-ac96-774b-bcce-b302099a8057 dist --to build")]
    Get {
        /// The run that made it
        #[arg(value_parser = values::run_id)]
        run: RunId,
        /// Its name
        name: String,
        /// Into which directory; this one by default. There it has the name that it had in its job: `--to build` makes
        /// build/dist of what was saved as out/dist. Nothing that is there is replaced
        #[arg(long, value_name = "DIR", conflicts_with = "tar", value_hint = ValueHint::DirPath)]
        to: Option<PathBuf>,
        /// As a tar.zst archive of this name instead (- is standard output)
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        tar: Option<PathBuf>,
        #[command(flatten)]
        place: ArtifactPlace,
    },
}

/// Whose artifacts.
#[derive(Clone, Debug, Args)]
pub(crate) struct ArtifactPlace {
    /// Those of `executr run` on this machine, instead of a server's
    #[arg(long)]
    pub(crate) here: bool,
    /// Where runs of this machine are kept
    #[arg(long, env = "EXECUTR_DATA_DIR", value_name = "DIR", value_parser = values::path)]
    pub(crate) data_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}
