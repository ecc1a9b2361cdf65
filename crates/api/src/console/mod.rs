//! Consoles: a command that runs beside the steps of a running job, and whoever types into it.
//!
//! Two ends speak over a [`ConsoleLine`]: the caller, who asked for it, and the host, the worker that has the job. The
//! first frame is the caller's [`Ask`](ConsoleFrame::Ask), the last the host's [`End`](ConsoleFrame::End):
//!
//! ```text
//! caller  Ask              Input… InputEnd  Resize  Signal  Taken
//! host          Started    Output…                          Taken  End
//! both                                                      Alive
//! ```
//!
//! Neither end sends more than [`CONSOLE_WINDOW`] bytes that the other hasn't said it has [`Taken`](ConsoleFrame::Taken). So
//! whoever is slow slows the other end down and nobody between, and words that aren't bytes always get through: that both
//! ends are [`Alive`](ConsoleFrame::Alive) can be told from a reader that takes its time.

mod frame;

use std::fmt;
use std::pin::Pin;
use std::str::FromStr;
use std::time::Duration;

use executr_spec::JobId;
use futures_util::stream::BoxStream;
use futures_util::{Sink, SinkExt as _, StreamExt as _};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::codec::Framed;
use utoipa::ToSchema;
use uuid::Uuid;

pub use self::frame::{ConsoleCodec, ConsoleFrame, MAX_CONSOLE_DATA};
use crate::error::{ApiError, ErrorCode};

/// The protocol's name in the `Upgrade` header of HTTP. Another name when it changes.
pub const CONSOLE_PROTOCOL: &str = "executr-console-1";

/// How many bytes either end may have sent that the other hasn't taken.
pub const CONSOLE_WINDOW: u32 = 256 << 10;

/// How often an end that has nothing else to say says that it is there.
pub const CONSOLE_ALIVE: Duration = Duration::from_secs(10);

/// After so long without a word the other end is gone.
pub const CONSOLE_SILENCE: Duration = Duration::from_secs(35);

/// One console. A secret: who knows it takes the host's end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String, format = Uuid)]
pub struct ConsoleId(pub Uuid);

impl fmt::Display for ConsoleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ConsoleId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

impl fmt::Debug for ConsoleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConsoleId(…)")
    }
}

/// What a worker is told of a console that somebody wants in one of its jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConsoleOrder {
    /// Under which to take the host's end.
    pub console: ConsoleId,
    /// In which job.
    pub job: JobId,
    /// Who wants it, in words.
    pub by: String,
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// The terminal that a command is to have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// How large it is at first.
    pub size: TerminalSize,
    /// What it understands: `TERM`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

/// What is to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConsoleAsk {
    /// The program and its arguments; a shell that is there when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// With a terminal. Else with three pipes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminal: Option<Terminal>,
}

/// How a console ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum ConsoleEnd {
    /// The command exited with this code.
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// A signal ended the command.
    Signalled {
        /// Its number.
        signal: i32,
    },
    /// The command couldn't be started.
    NotStarted {
        /// Why, in words.
        message: String,
    },
    /// It was ended from outside, or never began: the job is over, something between is lost.
    Ended {
        /// Why, in words.
        message: String,
    },
}

impl ConsoleEnd {
    /// One that was ended for this reason.
    pub fn because(message: impl Into<String>) -> Self {
        Self::Ended { message: message.into() }
    }
}

/// What can be said into a line.
pub type ConsoleSink = Pin<Box<dyn Sink<ConsoleFrame, Error = ApiError> + Send>>;

/// What comes out of a line. It ends when the other end is gone.
pub type ConsoleFrames = BoxStream<'static, Result<ConsoleFrame, ApiError>>;

/// One end of a console. Dropped, the other end is told that it is gone.
pub struct ConsoleLine {
    /// To the other end.
    pub sink: ConsoleSink,
    /// From the other end.
    pub frames: ConsoleFrames,
}

impl ConsoleLine {
    /// A line over a stream of bytes that carries nothing else from here on.
    pub fn over(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        let (sink, frames) = Framed::new(stream, ConsoleCodec).split();
        let lost = |error: frame::FrameError| ApiError::new(ErrorCode::Unavailable, error.to_string());
        Self { sink: Box::pin(sink.sink_map_err(lost)), frames: frames.map(move |frame| frame.map_err(lost)).boxed() }
    }
}

impl fmt::Debug for ConsoleLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleLine").finish_non_exhaustive()
    }
}

/// Why frames aren't passed on any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// The last was.
    End,
    /// One of the two is gone.
    Gone,
}

/// Passes frames on as they come, and tells `seen` of each that isn't just a sign of life.
pub async fn pass(from: &mut ConsoleFrames, to: &mut ConsoleSink, mut seen: impl FnMut()) -> Passed {
    while let Some(Ok(frame)) = from.next().await {
        let is_last = matches!(frame, ConsoleFrame::End(_));
        if !matches!(frame, ConsoleFrame::Alive) {
            seen();
        }
        if to.send(frame).await.is_err() {
            return Passed::Gone;
        }
        if is_last {
            return Passed::End;
        }
    }
    Passed::Gone
}

/// After the last word was said: waits until the other end has heard it and goes. A connection that is closed while something
/// said by the other end lies there unread may lose the word.
pub async fn linger(frames: &mut ConsoleFrames) {
    while let Some(Ok(_)) = frames.next().await {}
}

/// How much more may be sent to the other end.
#[derive(Clone, Copy, Debug)]
pub struct ConsoleWindow(u32);

impl Default for ConsoleWindow {
    fn default() -> Self {
        Self(CONSOLE_WINDOW)
    }
}

impl ConsoleWindow {
    /// How many bytes more may be sent now, at most as many as one frame takes.
    #[must_use]
    pub fn room(self) -> usize {
        MAX_CONSOLE_DATA.min(self.0 as usize)
    }

    /// So many were sent.
    pub fn sent(&mut self, bytes: usize) {
        self.0 = self.0.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// The other end has taken so many.
    pub fn taken(&mut self, bytes: u32) {
        self.0 = self.0.saturating_add(bytes).min(CONSOLE_WINDOW);
    }
}
