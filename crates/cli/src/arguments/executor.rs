//! `executr executor` and `executr up`.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use executr_api::QueueWeight;
use executr_spec::{Bytes, Span};

use super::connection::CredentialArgs;
use super::server::{DatabaseArgs, ListeningArgs, QueueRules};
use super::values;

/// `executr executor`
#[derive(Debug, Args)]
#[command(
    about = "Start an executor, which takes jobs from a server",
    long_about = "Starts an executor: it takes jobs from a server and runs them on this machine, as this user. It needs \
        to reach the server; nothing needs to reach it.\n\n\
        On SIGTERM or Ctrl-C it takes no more jobs, finishes those it has and exits with 0; on a second one it ends \
        them. While the server is away jobs go on, and their results are kept on disk until it is back.",
    after_help = "Examples:
  executr executor --name w1 --server-url http://server:8080 --max-jobs 8
  executr executor --name w1 --server-url https://server --token-file /etc/executr/token
  executr executor --name gpu-1 --server-url http://server:8080 --queue training=3 --queue default --label gpu=a100"
)]
pub(crate) struct ExecutorArgs {
    /// The server
    #[arg(long, env = "EXECUTR_SERVER_URL", value_name = "URL", help_heading = "Server")]
    pub(crate) server_url: String,
    #[command(flatten)]
    pub(crate) credentials: CredentialArgs,
    /// What to call this executor; its id is this name and a suffix that is new at every start
    #[arg(long, env = "EXECUTR_NAME")]
    pub(crate) name: String,
    /// How many jobs to run at a time
    #[arg(long, env = "EXECUTR_MAX_JOBS", value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) max_jobs: u32,
    #[command(flatten)]
    pub(crate) choices: ExecutorChoices,
    /// Where results are kept while the server is away. By default `executr` in $XDG_STATE_HOME, else in ~/.local/state
    #[arg(long, env = "EXECUTR_DATA_DIR", value_name = "DIR", value_parser = values::path, help_heading = "Server")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Accepted and without effect: nothing polls. A waiting executor is answered the moment there is a job
    #[arg(long, env = "EXECUTR_POLL_INTERVAL", value_name = "DURATION", default_value = "5s", help_heading = "Server")]
    pub(crate) poll_interval: Span,
    /// How often at least to tell the server about running jobs; it may ask for more
    #[arg(
        long,
        env = "EXECUTR_HEARTBEAT_INTERVAL",
        value_name = "DURATION",
        default_value = "5s",
        help_heading = "Server"
    )]
    pub(crate) heartbeat_interval: Span,
    /// Take no jobs after so long without the server, until it is back
    #[arg(
        long,
        env = "EXECUTR_NETWORK_TIMEOUT",
        value_name = "DURATION",
        default_value = "60s",
        help_heading = "Server"
    )]
    pub(crate) network_timeout: Span,
    /// Exit, with 0, after so many jobs
    #[arg(long, env = "EXECUTR_MAX_TOTAL_JOBS", value_name = "NUMBER", help_heading = "Ending by itself")]
    pub(crate) max_total_jobs: Option<u64>,
    /// Take no job after so long, and exit, with 0, when the last one has ended
    #[arg(long, env = "EXECUTR_MAX_ACTIVE_TIME", value_name = "DURATION", help_heading = "Ending by itself")]
    pub(crate) max_active_time: Option<Span>,
}

/// What `executor` and `up` have in common: which jobs are run, where, and with what.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Jobs")]
pub(crate) struct ExecutorChoices {
    /// A queue to serve, with its share when several have jobs; repeatable. By default the queue `default`
    #[arg(long, env = "EXECUTOR_QUEUE_NAME", value_name = "NAME=WEIGHT", value_delimiter = ',', value_parser = values::queue_weight)]
    pub(crate) queue: Vec<QueueWeight>,
    /// Something to say of this machine, for jobs that ask for it; repeatable
    #[arg(long, env = "EXECUTR_LABEL", value_name = "NAME=VALUE", value_delimiter = ',', value_parser = values::pair)]
    pub(crate) label: Vec<(String, String)>,
    /// What jobs may use beyond the default: directory, inherit, providers, hooks, command, oci, oci-host, ssh, ssh-files; repeatable
    #[arg(long, env = "EXECUTR_ALLOW", value_name = "WHAT", value_delimiter = ',', value_parser = values::allowed)]
    pub(crate) allow: Vec<values::Allowed>,
    /// Images that containers may be of, `*` and `?` as in the shell, but over `/` too; repeatable. Any by default
    #[arg(long, env = "EXECUTR_ALLOW_IMAGE", value_name = "PATTERN", value_delimiter = ',')]
    pub(crate) allow_image: Vec<String>,
    /// As whom steps in containers may run, as their `user` says it; repeatable. Anybody by default
    #[arg(long, env = "EXECUTR_ALLOW_USER", value_name = "PATTERN", value_delimiter = ',')]
    pub(crate) allow_user: Vec<String>,
    /// A directory of this machine that containers may have, with all below it; repeatable
    #[arg(long, env = "EXECUTR_ALLOW_MOUNT", value_name = "DIR", value_delimiter = ',', value_hint = ValueHint::DirPath)]
    pub(crate) allow_mount: Vec<PathBuf>,
    /// A mirror of a registry that images are fetched from before the registry itself; repeatable, the first is tried first
    #[arg(long, env = "EXECUTR_REGISTRY_MIRROR", value_name = "REGISTRY=URL", value_delimiter = ',', value_parser = values::mirror)]
    pub(crate) registry_mirror: Vec<String>,
    /// Where fetched programs are kept
    #[arg(long, env = "EXECUTR_CACHE_DIR", value_name = "DIR", default_value = "~/.executr/cache", value_parser = values::path, value_hint = ValueHint::DirPath)]
    pub(crate) cache_dir: PathBuf,
    /// Where jobs have their directories
    #[arg(long, env = "EXECUTR_WORK_DIR", value_name = "DIR", default_value = "/tmp/executr-jobs", value_parser = values::path, value_hint = ValueHint::DirPath)]
    pub(crate) work_dir: PathBuf,
    /// Megabytes of fetched programs to keep; the least recently used goes first
    #[arg(long, env = "EXECUTR_MAX_CACHE_SIZE", value_name = "MEGABYTES", default_value_t = 400)]
    pub(crate) max_cache_size: u64,
    /// How much output of an attempt is kept; of more, the first three quarters and the last quarter
    #[arg(long, env = "EXECUTR_OUTPUT_CAP", value_name = "AMOUNT", default_value = "256Mi")]
    pub(crate) output_cap: Bytes,
    /// How long a job that is asked to end has before it is ended
    #[arg(long, env = "EXECUTR_KILL_GRACE", value_name = "DURATION", default_value = "5s")]
    pub(crate) kill_grace: Span,
}

/// `executr up`
#[derive(Debug, Args)]
#[command(
    about = "Start a server and an executor in one process",
    long_about = "Starts a server and an executor in one process, on the embedded database. Ctrl-C takes no more jobs, \
        finishes the running ones and exits; a second one ends them.",
    after_help = "Examples:
  executr up
  executr up --max-jobs 8 --port 9090
  executr up --data-dir ./queue"
)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    #[command(flatten)]
    pub(crate) listening: ListeningArgs,
    #[command(flatten)]
    pub(crate) rules: QueueRules,
    /// What to call the executor
    #[arg(long, env = "EXECUTR_NAME", default_value = "up")]
    pub(crate) name: String,
    /// How many jobs to run at a time. By default one for each processor
    #[arg(long, env = "EXECUTR_MAX_JOBS", value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) max_jobs: Option<u32>,
    #[command(flatten)]
    pub(crate) choices: ExecutorChoices,
}
