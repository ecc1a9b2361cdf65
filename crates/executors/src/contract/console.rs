//! Consoles: commands that people run in a sandbox, beside its steps.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Event, ExecutorError};

/// Opens consoles in one sandbox. May be used while a step runs there; not any more once the sandbox is cleaned up.
#[async_trait]
pub trait Consoles: Send + Sync {
    /// Starts a command. That its program can't be started is an event, not an error.
    ///
    /// # Errors
    /// When the place is lost, or has no room for one more.
    async fn open(&self, plan: ConsolePlan) -> Result<Box<dyn Console>, ExecutorError>;
}

/// A command to run, as far as its place is concerned.
#[derive(Clone, Debug)]
pub struct ConsolePlan {
    /// The program and its arguments. Without a slash it is looked up in the environment's PATH.
    pub argv: Vec<Bytes>,
    /// The whole environment, each `KEY=VALUE`.
    pub env: Vec<Bytes>,
    /// Where it starts, from the job directory; there itself when `None`.
    pub workdir: Option<PathBuf>,
    /// The terminal it has as standard input, output and error. Without one it has three pipes.
    pub terminal: Option<Terminal>,
}

/// A terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
    /// What it understands, in place of a `TERM` in the environment.
    pub kind: Option<String>,
}

/// The most bytes of input that may be on the way to a command that it hasn't taken.
pub const MAX_CONSOLE_INPUT: u32 = 256 << 10;

/// A command that was started. Dropped before its end, its tree is ended at once.
#[async_trait]
pub trait Console: Send {
    /// What happens next, as with a step's execution, and how much of its input is taken; with a terminal all output is of
    /// standard output. `None` after the end. The future may be dropped and asked for again without loss.
    ///
    /// # Errors
    /// When the place is lost, and with it the command.
    async fn next(&mut self) -> Result<Option<Event>, ExecutorError>;

    /// Writes to its standard input; with `last` nothing comes behind. No more than [`MAX_CONSOLE_INPUT`] may be on the way.
    ///
    /// # Errors
    /// When the place is lost.
    async fn write_input(&mut self, data: Bytes, last: bool) -> Result<(), ExecutorError>;

    /// Gives its terminal another size.
    ///
    /// # Errors
    /// When the place is lost.
    async fn resize(&mut self, rows: u16, columns: u16) -> Result<(), ExecutorError>;

    /// Sends a signal to its tree.
    ///
    /// # Errors
    /// When the place is lost.
    async fn signal(&mut self, signal: u8) -> Result<(), ExecutorError>;

    /// Ends its whole tree: SIGTERM, and SIGKILL to what is left after `grace`. The end then comes by [`next`](Self::next).
    ///
    /// # Errors
    /// When the place is lost.
    async fn end(&mut self, grace: Duration) -> Result<(), ExecutorError>;
}
