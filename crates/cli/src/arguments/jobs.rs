//! Commands about jobs that were submitted: `list`, `status`, `logs`, `cancel` and `wait`.

use clap::{Args, ValueEnum};
use executr_api::JobStatus;
use executr_spec::{JobId, JobType, Priority, QueueName, Span};

use super::connection::ConnectionArgs;
use super::values::{self, OutputForm};

/// `executr list`
#[derive(Debug, Args)]
#[command(
    about = "List jobs, the newest first",
    after_help = "Examples:
  executr list
  executr list --status failed --type report
  executr list --limit 1000 --output json | jq -r '.[].id'"
)]
pub(crate) struct ListArgs {
    /// Only jobs with this status: pending, running, completed, failed or cancelled
    #[arg(long)]
    pub(crate) status: Option<JobStatus>,
    /// Only jobs of this type
    #[arg(long = "type", value_name = "WORD")]
    pub(crate) job_type: Option<JobType>,
    /// Only jobs with this priority: foreground, background or best_effort
    #[arg(long)]
    pub(crate) priority: Option<Priority>,
    /// Only jobs of this queue
    #[arg(long, value_name = "NAME")]
    pub(crate) queue: Option<QueueName>,
    /// At most so many
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    pub(crate) limit: u32,
    /// Only jobs that are older than this one: the next page
    #[arg(long, value_name = "ID", value_parser = values::job_id)]
    pub(crate) before: Option<JobId>,
    /// How to show them
    #[arg(long, env = "EXECUTR_OUTPUT", value_name = "FORM", default_value = "table")]
    pub(crate) output: OutputForm,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// `executr status`
#[derive(Debug, Args)]
#[command(
    about = "Show one job",
    after_help = "Examples:
  executr status 01890a5d-ac96-774b-bcce-b302099a8057
  executr status 01890a5d-ac96-774b-bcce-b302099a8057 --output json | jq .exit_code"
)]
pub(crate) struct StatusArgs {
    /// The job
    #[arg(value_name = "ID", value_parser = values::job_id)]
    pub(crate) id: JobId,
    /// How to show it
    #[arg(long, env = "EXECUTR_OUTPUT", value_name = "FORM", default_value = "table")]
    pub(crate) output: OutputForm,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// `executr logs`
#[derive(Debug, Args)]
#[command(
    about = "Show the output of a job",
    after_help = "Examples:
  executr logs 01890a5d-ac96-774b-bcce-b302099a8057
  executr logs -f 01890a5d-ac96-774b-bcce-b302099a8057
  executr logs --attempt 1 --stream stderr 01890a5d-ac96-774b-bcce-b302099a8057"
)]
pub(crate) struct LogsArgs {
    /// The job
    #[arg(value_name = "ID", value_parser = values::job_id)]
    pub(crate) id: JobId,
    /// Go on until the job has ended, from attempt to attempt
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// The output of this attempt, counted from 1; by default the last one
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) attempt: Option<u32>,
    /// What the job wrote to which stream
    #[arg(long, value_name = "STREAM", default_value = "both")]
    pub(crate) stream: StreamChoice,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// Which of a job's streams to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StreamChoice {
    /// Standard output, on standard output
    Stdout,
    /// Standard error, on standard error
    Stderr,
    /// Each on its own
    Both,
    /// None of them
    #[value(skip)]
    Neither,
}

/// `executr cancel`
#[derive(Debug, Args)]
#[command(
    about = "Cancel jobs, running or not",
    long_about = "Cancels jobs, running or not. Returns when none of their processes is left. The exit code is 0 when all \
        jobs are cancelled, 1 when one had already ended otherwise or would not end in time.",
    after_help = "Examples:
  executr cancel 01890a5d-ac96-774b-bcce-b302099a8057
  executr cancel --no-wait 01890a5d-ac96-774b-bcce-b302099a8057
  executr list --status pending --output json | jq -r '.[].id' | xargs executr cancel"
)]
pub(crate) struct CancelArgs {
    /// The jobs
    #[arg(required = true, value_name = "ID", value_parser = values::job_id)]
    pub(crate) ids: Vec<JobId>,
    /// How long to wait for the end of running jobs
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_value = "1m", default_missing_value = "1m")]
    pub(crate) wait: Span,
    /// Only ask for the end of running jobs, don't wait for it
    #[arg(long, conflicts_with = "wait")]
    pub(crate) no_wait: bool,
    /// How to show them
    #[arg(long, env = "EXECUTR_OUTPUT", value_name = "FORM", default_value = "table")]
    pub(crate) output: OutputForm,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// `executr wait`
#[derive(Debug, Args)]
#[command(
    about = "Wait until jobs have ended",
    long_about = "Waits until all of the jobs have ended and says how. The exit code is 0 when all have completed, else 1.",
    after_help = "Examples:
  executr wait 01890a5d-ac96-774b-bcce-b302099a8057
  executr submit --file jobs.json --output json | jq -r '.[].id' | xargs executr wait"
)]
pub(crate) struct WaitArgs {
    /// The jobs
    #[arg(required = true, value_name = "ID", value_parser = values::job_id)]
    pub(crate) ids: Vec<JobId>,
    /// Give up after so long, with exit code 1
    #[arg(long, value_name = "DURATION")]
    pub(crate) timeout: Option<Span>,
    /// How to show them
    #[arg(long, env = "EXECUTR_OUTPUT", value_name = "FORM", default_value = "table")]
    pub(crate) output: OutputForm,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}
