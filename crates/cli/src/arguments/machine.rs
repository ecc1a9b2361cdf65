//! Commands about this machine: `doctor` and `clean`.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use executr_spec::Span;

use super::values::{self, OutputForm};

/// `executr doctor`
#[derive(Debug, Args)]
#[command(
    about = "Say what each executor has and lacks on this machine, and the remedy",
    long_about = "Says what each executor of this program has and lacks on this machine, and the remedy: `ok` is there and \
        works, `lacks` is wanted by some jobs only, `broken` is what jobs use by default, or what was asked for, and \
        doesn't work. A step is run to find out, and what is made for that goes again.\n\n\
        The exit code is 1 when something is broken, else 0.",
    after_help = "Examples:
  executr doctor
  executr doctor --output json
  DOCKER_HOST=unix:///run/user/1000/podman/podman.sock executr doctor"
)]
pub(crate) struct DoctorArgs {
    /// How to show what was found
    #[arg(long, env = "EXECUTR_OUTPUT", value_name = "FORM", default_value = "table")]
    pub(crate) output: OutputForm,
    /// Where data is kept. By default `executr` in $XDG_STATE_HOME, else in ~/.local/state
    #[arg(long, env = "EXECUTR_DATA_DIR", value_name = "DIR", value_parser = values::path)]
    pub(crate) data_dir: Option<PathBuf>,
}

/// `executr clean`
#[derive(Debug, Args)]
#[command(
    about = "Remove what dead executr processes left on this machine",
    long_about = "Removes what executr processes that were killed left on this machine, and nothing else: directories of \
        their runs and jobs, containers, control groups with what still runs in them, parts of fetched files. What a living process \
        holds is never touched, and neither are results that wait for their server or runs that can be gone on with.\n\n\
        The next start of a command removes most of this too. The exit code is 1 when something stays.",
    after_help = "Examples:
  executr clean --dry-run
  executr clean
  executr clean --runs 7d"
)]
pub(crate) struct CleanArgs {
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Remove runs of workflows too that were begun so long ago and have ended, or whose process died: 12h, 7d
    #[arg(long, value_name = "AGE")]
    pub(crate) runs: Option<Span>,
    /// How to show what was found
    #[arg(long, env = "EXECUTR_OUTPUT", value_name = "FORM", default_value = "table")]
    pub(crate) output: OutputForm,
    /// Where data is kept. By default `executr` in $XDG_STATE_HOME, else in ~/.local/state
    #[arg(long, env = "EXECUTR_DATA_DIR", value_name = "DIR", value_parser = values::path)]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where executors keep fetched programs
    #[arg(long, env = "EXECUTR_CACHE_DIR", value_name = "DIR", default_value = "~/.executr/cache", value_parser = values::path, value_hint = ValueHint::DirPath)]
    pub(crate) cache_dir: PathBuf,
    /// Where jobs of executors have their directories
    #[arg(long, env = "EXECUTR_WORK_DIR", value_name = "DIR", default_value = "/tmp/executr-jobs", value_parser = values::path, value_hint = ValueHint::DirPath)]
    pub(crate) work_dir: PathBuf,
}
