//! Messages about ourselves, on standard error.

use std::io;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use crate::arguments::{LogFormat, LogLevel, LoggingArgs};

/// Starts writing messages of at least the level asked for, or `default` when none was.
pub(crate) fn start(arguments: &LoggingArgs, default: Option<LogLevel>) {
    let Some(level) = arguments.log_level.or(default) else { return };
    let filter = EnvFilter::default().add_directive(LevelFilter::from(level).into());
    // Other people's crates tell about each request at these levels; ours do so where it matters.
    let quiet = ["hyper", "h2", "reqwest", "rustls", "tokio_postgres", "tower"];
    let quiet =
        quiet.iter().filter(|_| level != LogLevel::Trace).filter_map(|name| format!("{name}=warn").parse().ok());
    let filter = quiet.fold(filter, EnvFilter::add_directive);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match arguments.log_format {
        LogFormat::Json => builder.json().flatten_event(true).init(),
        LogFormat::Text => builder.with_ansi(crate::show::Ink::for_stderr() != crate::show::Ink::NONE).init(),
    }
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}
