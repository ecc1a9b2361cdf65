//! Commands about this machine: `doctor` and `clean`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

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
    about = "Remove what executr left on this machine when it was killed: containers and job directories",
    after_help = "Examples:
  executr clean
  executr clean --work-dir /srv/jobs"
)]
pub(crate) struct CleanArgs {
    /// Where jobs have their directories
    #[arg(long, env = "EXECUTR_WORK_DIR", value_name = "DIR", default_value = "/tmp/executr-jobs", value_parser = values::path, value_hint = ValueHint::DirPath)]
    pub(crate) work_dir: PathBuf,
}
