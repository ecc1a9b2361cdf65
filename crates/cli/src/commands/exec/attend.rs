//! What is typed and what is written, while a command runs at the other end of a line.

use std::io;

use bytes::Bytes;
use executr_api::console::{
    CONSOLE_ALIVE, CONSOLE_SILENCE, ConsoleAsk, ConsoleEnd, ConsoleFrame, ConsoleLine, ConsoleWindow,
};
use executr_api::{ApiError, ErrorCode};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::streams::{self, Input, Output};
use super::terminal::{self, Raw};
use crate::errors::{Failure, Result};
use crate::exit::Exit;

/// SIGINT, as Linux counts.
const INTERRUPT: u8 = 2;

/// Runs the command that is asked for, with this process's terminal, or its standard input and output.
pub(super) async fn attend(line: ConsoleLine, ask: ConsoleAsk) -> Result<Exit> {
    let mut told = Told::listen().map_err(|error| Failure::doing("listen to signals", error))?;
    let mut console = Console {
        line,
        output: Output::start().map_err(|error| Failure::doing("start a thread", error))?,
        input: None,
        pending: Bytes::new(),
        window: ConsoleWindow::default(),
        deaf: false,
        wants_raw: ask.terminal.is_some(),
        raw: None,
    };
    let stop = tokio::select! {
        stop = console.converse(ask, &mut told.interrupt) => stop,
        signal = told.to_end.next() => Stop::Signal(signal),
    };
    // Whoever is told something now is told it in a terminal that is as it was. What can't be written any more mustn't keep
    // that up either.
    let Console { output, raw, .. } = console;
    let written = match stop {
        Stop::End(_) => tokio::select! {
            written = output.finish() => written,
            signal = told.to_end.next() => return Ok(Exit::of_signal(signal)),
            _ = told.interrupt.recv() => return Ok(Exit::CANCELLED),
        },
        _ => Ok(()),
    };
    drop(raw);
    if let Err(error) = written {
        return write_failed(error);
    }
    match stop {
        Stop::End(ConsoleEnd::Exited { code }) => Ok(Exit::of_command(code)),
        Stop::End(ConsoleEnd::Signalled { signal }) => Ok(Exit::of_signal(signal)),
        Stop::End(ConsoleEnd::NotStarted { message }) => {
            Err(Failure::new(Exit::NO_RESULT, format!("the command can't be started: {message}")))
        }
        Stop::End(ConsoleEnd::Ended { message }) => Err(Failure::new(Exit::NO_RESULT, message)),
        Stop::Lost(error) => Err(Failure::new(
            Exit::NO_RESULT,
            format!("the connection is lost, and the command was ended with it: {error}"),
        )),
        Stop::Signal(signal) => Ok(Exit::of_signal(signal)),
        Stop::Write(error) => write_failed(error),
    }
}

fn write_failed(error: io::Error) -> Result<Exit> {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(Exit::OUTPUT_CLOSED),
        _ => Err(error.into()),
    }
}

/// Why it is over.
enum Stop {
    End(ConsoleEnd),
    Lost(ApiError),
    /// This process was told to end.
    Signal(i32),
    /// Nobody takes what the command writes.
    Write(io::Error),
}

impl From<ApiError> for Stop {
    fn from(error: ApiError) -> Self {
        Self::Lost(error)
    }
}

/// What this process is told from outside.
struct Told {
    interrupt: Signal,
    to_end: ToEnd,
}

struct ToEnd {
    hang_up: Signal,
    quit: Signal,
    terminate: Signal,
}

impl Told {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            to_end: ToEnd {
                hang_up: signal(SignalKind::hangup())?,
                quit: signal(SignalKind::quit())?,
                terminate: signal(SignalKind::terminate())?,
            },
        })
    }
}

impl ToEnd {
    async fn next(&mut self) -> i32 {
        let kind = tokio::select! {
            _ = self.hang_up.recv() => SignalKind::hangup(),
            _ = self.quit.recv() => SignalKind::quit(),
            _ = self.terminate.recv() => SignalKind::terminate(),
        };
        kind.as_raw_value()
    }
}

struct Console {
    line: ConsoleLine,
    output: Output,
    /// What is typed, once there is somebody to type to.
    input: Option<Input>,
    /// Of that, what the other end hasn't room for yet.
    pending: Bytes,
    window: ConsoleWindow,
    /// The other end hears no more; it may have said how it ended before.
    deaf: bool,
    wants_raw: bool,
    raw: Option<Raw>,
}

impl Console {
    async fn converse(&mut self, ask: ConsoleAsk, interrupt: &mut Signal) -> Stop {
        match self.exchange(ask, interrupt).await {
            Ok(end) => Stop::End(end),
            Err(stop) => stop,
        }
    }

    async fn say(&mut self, frame: ConsoleFrame) {
        self.deaf = self.deaf || self.line.sink.send(frame).await.is_err();
    }

    async fn exchange(&mut self, ask: ConsoleAsk, interrupt: &mut Signal) -> std::result::Result<ConsoleEnd, Stop> {
        let mut resized = signal(SignalKind::window_change()).map_err(Stop::Write)?;
        let mut alive = interval(CONSOLE_ALIVE);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let mut interrupted = false;
        self.say(ConsoleFrame::Ask(ask)).await;
        loop {
            let room = self.window.room().min(self.pending.len());
            if room > 0 {
                let bytes = self.pending.split_to(room);
                self.window.sent(room);
                self.say(ConsoleFrame::Input(bytes)).await;
                continue;
            }
            let frame = tokio::select! {
                frame = self.line.frames.next() => frame,
                bytes = typed(&mut self.input), if self.pending.is_empty() => {
                    match bytes {
                        Some(bytes) => self.pending = bytes,
                        None => {
                            self.input = None;
                            self.say(ConsoleFrame::InputEnd).await;
                        }
                    }
                    continue;
                }
                written = self.output.written() => {
                    match written {
                        Some(Ok(bytes)) => {
                            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
                            self.say(ConsoleFrame::Taken(bytes)).await;
                        }
                        Some(Err(error)) => return Err(Stop::Write(error)),
                        None => return Err(Stop::Write(io::ErrorKind::BrokenPipe.into())),
                    }
                    continue;
                }
                _ = resized.recv() => {
                    if self.wants_raw {
                        self.say(ConsoleFrame::Resize(terminal::size())).await;
                    }
                    continue;
                }
                _ = interrupt.recv() => {
                    // In a terminal of its own the command has it as a key. The second one doesn't wait for the command.
                    if interrupted {
                        return Err(Stop::Signal(SignalKind::interrupt().as_raw_value()));
                    }
                    interrupted = true;
                    self.say(ConsoleFrame::Signal(INTERRUPT)).await;
                    continue;
                }
                _ = alive.tick() => {
                    if heard.elapsed() >= CONSOLE_SILENCE {
                        let text = format!("nothing was heard for {} s", heard.elapsed().as_secs());
                        return Err(Stop::Lost(ApiError::new(ErrorCode::Unavailable, text)));
                    }
                    self.say(ConsoleFrame::Alive).await;
                    continue;
                }
            };
            heard = Instant::now();
            match frame.unwrap_or_else(|| Err(ApiError::new(ErrorCode::Unavailable, "the other end is gone")))? {
                ConsoleFrame::Started => {
                    if self.wants_raw {
                        self.raw = Raw::enter();
                    }
                    self.input = Some(streams::input().map_err(Stop::Write)?);
                }
                ConsoleFrame::Output { stream, bytes } => self.output.write(stream, bytes),
                ConsoleFrame::Taken(bytes) => self.window.taken(bytes),
                ConsoleFrame::End(end) => return Ok(end),
                _ => {}
            }
        }
    }
}

/// What is typed next; never while nobody listens.
async fn typed(input: &mut Option<Input>) -> Option<Bytes> {
    match input {
        Some(input) => input.recv().await,
        None => std::future::pending().await,
    }
}
