//! Commands that describe a job: `run` and `submit`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueHint};
use executr_spec::{BackoffKind, Bytes, Digest, JobType, Millicores, Priority, QueueName, Resources, Span, Timestamp};

use super::connection::ConnectionArgs;
use super::values::{self, OutputForm};
use super::workflow::{WorkflowArgs, WorkflowHereArgs};

/// `executr run`
#[derive(Debug, Args)]
#[command(
    about = "Run a command or a workflow here and now, with nothing installed and no server",
    long_about = "Runs a job here and now: a coordinator with an embedded database of its own and an executor, in one \
        process that ends with the job.\n\n\
        The job runs in this directory with this environment. Its output appears as it is written, byte for byte; the \
        exit code is the job's, 128 + n when signal n ended it. Ctrl-C cancels the job, with every process it has \
        started; a second Ctrl-C doesn't wait for that.\n\n\
        With --image it runs in a container instead, with a copy of this repository in it; with --network none that takes \
        neither Docker nor Podman, only crun or runc.\n\n\
        When the first word is a file whose name ends in .yaml, .yml or .json, and doesn't come after `--`, it is a \
        workflow: its jobs run in copies of this repository, as many at a time as there are processors. Words after it \
        choose jobs; what they need runs too. The exit code is 0 when the run completed, 1 when it failed, 130 when it \
        was cancelled. Ctrl-C cancels the run and lets what is meant for that case run; a second one ends that too.",
    after_help = "Examples:
  executr run -- make test
  executr run ci.yaml
  executr run ci.yaml test --jobs 4 --env VERSION=2
  executr run -- sh -c 'echo hello; sleep 1; echo done'
  executr run --timeout 10m --memory 2Gi -- ./build.sh all
  executr run --image alpine:3 -- sh -c 'cat /etc/os-release; ls'
  executr run --image gcc:14 --files src --files Makefile --modified out -- make"
)]
pub(crate) struct RunArgs {
    /// A program and its arguments; or a workflow's file, and the jobs to run of it
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND|FILE", value_hint = ValueHint::CommandWithArguments)]
    pub(crate) command: Vec<String>,
    /// Whether the first word is a workflow's file.
    #[arg(skip)]
    pub(crate) is_workflow: bool,
    /// End the job after so long: 300ms, 5s, 10m, 2h
    #[arg(long, value_name = "DURATION")]
    pub(crate) timeout: Option<Span>,
    /// A variable for the job, on top of this environment; for all jobs of a workflow, over what its file says; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::pair)]
    pub(crate) env: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) resources: ResourceArgs,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) workflow: WorkflowArgs,
    #[command(flatten)]
    pub(crate) here: WorkflowHereArgs,
    /// Where data is kept while the job runs, and of workflows afterwards too. By default `executr` in $XDG_STATE_HOME, else in ~/.local/state
    #[arg(long, env = "EXECUTR_DATA_DIR", value_name = "DIR", value_parser = values::path)]
    pub(crate) data_dir: Option<PathBuf>,
}

/// A place of its own for a command: it starts in a directory with a copy of this repository, not in this one.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "A place of its own")]
pub(crate) struct PlaceArgs {
    /// Run the command in a container of this image, which goes with it. It finds a copy of this repository where it starts, and
    /// of variables those of the image and of --env
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// The container's network: bridge, with a way out, which takes Docker or Podman; none; or host, this machine's
    #[arg(long, value_name = "NETWORK", requires = "image", value_parser = ["bridge", "none", "host"])]
    pub(crate) network: Option<String>,
    /// Copy only this file or directory of the repository, there or to another place; repeatable. Without --image the command
    /// runs on this machine, in a directory of its own
    #[arg(long, value_name = "FROM[:TO]", value_parser = values::selection)]
    pub(crate) files: Vec<(String, Option<String>)>,
    /// Unpack what the command added or changed into this directory when it is over, over what is there. What it deleted is
    /// listed. `.` is over the files here
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) modified: Option<PathBuf>,
}

impl PlaceArgs {
    /// Whether the command has a place of its own.
    pub(crate) fn is_wanted(&self) -> bool {
        self.image.is_some() || !self.files.is_empty() || self.modified.is_some()
    }
}

/// Bounds for a job. Where they can't be kept the job isn't run.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct ResourceArgs {
    /// Processor time per time: 2, 0.5 or 500m
    #[arg(long, value_name = "CORES")]
    pub(crate) cpu: Option<Millicores>,
    /// Memory of all its processes together: 512Mi, 2Gi
    #[arg(long, value_name = "AMOUNT")]
    pub(crate) memory: Option<Bytes>,
    /// Processes and threads, all together
    #[arg(long, value_name = "NUMBER")]
    pub(crate) pids: Option<u32>,
}

impl ResourceArgs {
    pub(crate) fn resources(&self) -> Resources {
        Resources { cpu: self.cpu, memory: self.memory, pids: self.pids }
    }
}

/// `executr submit`
#[derive(Debug, Args)]
#[command(
    about = "Submit a job or a workflow",
    group = ArgGroup::new("what").args(["command", "binary_url", "run", "file"]).required(true).multiple(true),
    long_about = "Submits a job. Without --wait it prints the job's id and returns; the job is on disk by then.\n\n\
        A command is run on the executor, in an empty directory; to send your repository along, submit a workflow. When its first word is a relative path with a slash (./report, bin/report), \
        that file is uploaded first, unless the server has it already, and run there: a program or a script that \
        begins with #!. When it is a file whose name ends in .yaml, .yml or .json it is a workflow, and words after it \
        choose jobs; this repository is sent along, without what the server has already. With --binary-url the executor fetches the program, checks its digest before every run, and \
        gives it the variables named with --env and no others.",
    after_help = "Examples:
  executr submit --wait -- ./my-script.sh a b
  executr submit --queue reports --max-retries 2 -- curl -fsS https://example.com/numbers
  executr submit --wait --run 'cat numbers | sort -n | tail -1'
  executr submit --type report --binary-url https://example.com/report --args 2026 --args --full
  executr submit --file jobs.json
  executr submit --wait ci.yaml
  id=$(executr submit -- sleep 60); executr logs -f \"$id\""
)]
pub(crate) struct SubmitArgs {
    /// A program and its arguments; or a workflow's file, and the jobs to run of it
    #[arg(value_name = "COMMAND|FILE", value_hint = ValueHint::CommandName, conflicts_with_all = ["run", "file"])]
    pub(crate) command: Vec<String>,
    /// A shell script to run instead of a command
    #[arg(long, value_name = "SCRIPT", conflicts_with_all = ["binary_url", "file"])]
    pub(crate) run: Option<String>,
    /// Where the executor fetches the program: http, https or file URL
    #[arg(long, env = "EXECUTR_BINARY_URL", value_name = "URL", conflicts_with = "file")]
    pub(crate) binary_url: Option<String>,
    /// The program's SHA-256; by default computed now, by downloading it
    #[arg(long, env = "EXECUTR_BINARY_SHA256", value_name = "HEX")]
    pub(crate) binary_sha256: Option<Digest>,
    /// An argument for the program at --binary-url; repeatable
    #[arg(long, env = "EXECUTR_ARGS", value_name = "ARGUMENT", allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
    /// Submit all jobs of a file (- is standard input): a JSON array of what POST /jobs takes, or one a line
    #[arg(long, value_name = "FILE", conflicts_with_all = ["wait"], value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,

    /// Show the output as it appears and exit with the job's exit code
    #[arg(long)]
    pub(crate) wait: bool,
    /// How to show the answer
    #[arg(long, env = "EXECUTR_OUTPUT", value_name = "FORM", default_value = "table")]
    pub(crate) output: OutputForm,

    /// The word by which you find the job again
    #[arg(long = "type", env = "EXECUTR_TYPE", value_name = "WORD", help_heading = "Job")]
    pub(crate) job_type: Option<JobType>,
    /// A variable for the job; repeatable
    #[arg(long, env = "EXECUTR_ENV", value_name = "NAME=VALUE", value_parser = values::pair, help_heading = "Job")]
    pub(crate) env: Vec<(String, String)>,
    /// foreground, background or best_effort
    #[arg(long, env = "EXECUTR_PRIORITY", default_value = "background", help_heading = "Job")]
    pub(crate) priority: Priority,
    /// The queue in which it waits
    #[arg(long, env = "EXECUTR_QUEUE", value_name = "NAME", default_value = "default", help_heading = "Job")]
    pub(crate) queue: QueueName,
    /// Run only on executors with this label; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::pair, help_heading = "Job")]
    pub(crate) label: Vec<(String, String)>,
    /// End an attempt after so long: 300ms, 5s, 10m, 2h
    #[arg(long, value_name = "DURATION", help_heading = "Job")]
    pub(crate) timeout: Option<Span>,
    /// How often a failed attempt is repeated
    #[arg(long, value_name = "NUMBER", default_value_t = 0, help_heading = "Job")]
    pub(crate) max_retries: u32,
    /// How the time between attempts grows: exponential, linear or constant
    #[arg(long, value_name = "KIND", value_parser = backoff_kind, help_heading = "Job")]
    pub(crate) backoff: Option<BackoffKind>,
    /// Not before this time, as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time, help_heading = "Job")]
    pub(crate) run_at: Option<Timestamp>,
    /// Submitting again with the same key gives the job there is already
    #[arg(long, value_name = "KEY", help_heading = "Job")]
    pub(crate) idempotency_key: Option<String>,
    /// Jobs with the same key run one at a time, or as many as --concurrency-limit says
    #[arg(long, value_name = "KEY", help_heading = "Job")]
    pub(crate) concurrency_key: Option<String>,
    /// How many jobs with the same --concurrency-key may run at a time
    #[arg(long, value_name = "NUMBER", requires = "concurrency_key", help_heading = "Job")]
    pub(crate) concurrency_limit: Option<u32>,
    #[command(flatten)]
    pub(crate) resources: ResourceArgs,
    #[command(flatten)]
    pub(crate) workflow: WorkflowArgs,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

fn backoff_kind(text: &str) -> Result<BackoffKind, String> {
    match text {
        "exponential" => Ok(BackoffKind::Exponential),
        "linear" => Ok(BackoffKind::Linear),
        "constant" => Ok(BackoffKind::Constant),
        _ => Err("use exponential, linear or constant".to_owned()),
    }
}

fn time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "write it as 2026-01-31T12:00:00Z".to_owned())
}
