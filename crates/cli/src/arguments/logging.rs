//! What a process tells about itself on standard error.

use clap::{Args, ValueEnum};

/// Which messages go to standard error, and how.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Messages")]
pub(crate) struct LoggingArgs {
    /// The least important messages to write. By default `info` for server and executor, `warn` for up, none for other commands
    #[arg(long, global = true, env = "EXECUTR_LOG_LEVEL", value_name = "LEVEL")]
    pub(crate) log_level: Option<LogLevel>,
    /// How to write them
    #[arg(long, global = true, env = "EXECUTR_LOG_FORMAT", value_name = "FORMAT", default_value = "json")]
    pub(crate) log_format: LogFormat,
}

/// How important a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "the names are the usual ones")]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// One JSON object a line
    Json,
    /// One line of text
    Text,
}
