//! Why there is no agent behind an argv, or no longer.

use std::path::PathBuf;

use thiserror::Error;

use super::process::Account;

/// Why a place behind an argv can't be had or is lost.
#[derive(Debug, Error)]
pub enum CommandError {
    /// There is no argv.
    #[error("the executor's `argv` is empty; write the program that starts the agent, and its arguments")]
    NoProgram,
    /// There is no agent for it.
    #[error("there is no agent to start: {0}")]
    NoAgent(String),
    /// It ended before an agent answered.
    #[error(
        "`{program}` {account}, before an agent answered; it has to run {{agent}} and leave it its standard input and output"
    )]
    Ended {
        /// Its first word.
        program: String,
        /// How, and what it wrote last.
        account: Account,
    },
    /// It runs, and no agent answers.
    #[error("no agent answers through `{program}`{}; does it run {{agent}}, with its own standard input and output?", aside(.said))]
    Silent {
        /// Its first word.
        program: String,
        /// What it wrote last.
        said: String,
    },
    /// What comes isn't an agent's.
    #[error(
        "what `{program}` writes isn't what an agent says ({problem}){}; nothing but {{agent}} may write to its standard \
         output",
        aside(.said)
    )]
    Garbled {
        /// Its first word.
        program: String,
        /// What was wrong.
        problem: String,
        /// What it wrote last to standard error.
        said: String,
    },
    /// The agent can't use the directory of the job.
    #[error(
        "the agent that `{program}` starts can't use {}: it isn't there at the same path, or can't be changed; have \
         `argv` bring {{job_directory}} there, as `bwrap --bind {{job_directory}} {{job_directory}}` does",
        directory.display()
    )]
    Elsewhere {
        /// Its first word.
        program: String,
        /// The directory on this machine.
        directory: PathBuf,
    },
    /// It is gone in the middle of a step.
    #[error("the agent behind `{program}` is gone, and what it ran with it: it {account}")]
    Lost {
        /// Its first word.
        program: String,
        /// How, and what it wrote last.
        account: Account,
    },
}

/// What was written last, as the end of a clause.
pub(super) fn aside(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" ({text})") }
}
