//! What is said over a line, and its bytes: one for the kind, four for the length (little endian), then the payload.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio_util::codec::{Decoder, Encoder};

use super::{ConsoleAsk, ConsoleEnd, TerminalSize};
use crate::output::Stream;

/// The most bytes of input or output in one frame.
pub const MAX_CONSOLE_DATA: usize = 64 << 10;

/// The most bytes of any payload: a command line may be as long as Linux takes it, and JSON makes it longer.
const MAX_PAYLOAD: usize = 4 << 20;

const HEADER: usize = 5;

/// Something said over a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsoleFrame {
    /// What is to run.
    Ask(ConsoleAsk),
    /// It runs.
    Started,
    /// Bytes for its standard input.
    Input(Bytes),
    /// There are no more.
    InputEnd,
    /// Bytes it wrote; with a terminal all of them are of standard output.
    Output {
        /// Where.
        stream: Stream,
        /// The bytes.
        bytes: Bytes,
    },
    /// So many bytes are taken: as many more may be sent.
    Taken(u32),
    /// The terminal has another size now.
    Resize(TerminalSize),
    /// A signal for the command.
    Signal(u8),
    /// Nothing to say.
    Alive,
    /// How it ended.
    End(ConsoleEnd),
}

/// Why frames can't be read or written.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The stream is broken.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// These are no frames.
    #[error("a console can't be understood: {0}; are both ends of versions that fit?")]
    Frame(String),
}

/// Frames to bytes, and back.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConsoleCodec;

const ASK: u8 = 1;
const STARTED: u8 = 2;
const INPUT: u8 = 3;
const INPUT_END: u8 = 4;
const STDOUT: u8 = 5;
const STDERR: u8 = 6;
const TAKEN: u8 = 7;
const RESIZE: u8 = 8;
const SIGNAL: u8 = 9;
const ALIVE: u8 = 10;
const END: u8 = 11;

impl Encoder<ConsoleFrame> for ConsoleCodec {
    type Error = FrameError;

    fn encode(&mut self, frame: ConsoleFrame, out: &mut BytesMut) -> Result<(), FrameError> {
        match frame {
            ConsoleFrame::Ask(ask) => put(out, ASK, &json(&ask)?),
            ConsoleFrame::Started => put(out, STARTED, &[]),
            ConsoleFrame::Input(bytes) => put(out, INPUT, &bytes),
            ConsoleFrame::InputEnd => put(out, INPUT_END, &[]),
            ConsoleFrame::Output { stream: Stream::Stderr, bytes } => put(out, STDERR, &bytes),
            ConsoleFrame::Output { bytes, .. } => put(out, STDOUT, &bytes),
            ConsoleFrame::Taken(bytes) => put(out, TAKEN, &bytes.to_le_bytes()),
            ConsoleFrame::Resize(size) => {
                let ([a, b], [c, d]) = (size.rows.to_le_bytes(), size.columns.to_le_bytes());
                put(out, RESIZE, &[a, b, c, d])
            }
            ConsoleFrame::Signal(signal) => put(out, SIGNAL, &[signal]),
            ConsoleFrame::Alive => put(out, ALIVE, &[]),
            ConsoleFrame::End(end) => put(out, END, &json(&end)?),
        }
    }
}

impl Decoder for ConsoleCodec {
    type Item = ConsoleFrame;
    type Error = FrameError;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<ConsoleFrame>, FrameError> {
        let Some((&kind, rest)) = input.split_first() else { return Ok(None) };
        let Some(length) = rest.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        let most = if matches!(kind, INPUT | STDOUT | STDERR) { MAX_CONSOLE_DATA } else { MAX_PAYLOAD };
        if length > most {
            return Err(FrameError::Frame(format!("a frame of {length} bytes where {most} are the most")));
        }
        if input.len() < HEADER + length {
            input.reserve(HEADER + length - input.len());
            return Ok(None);
        }
        input.advance(HEADER);
        let payload = input.split_to(length).freeze();
        read(kind, payload).map(Some)
    }
}

fn read(kind: u8, payload: Bytes) -> Result<ConsoleFrame, FrameError> {
    let short = || FrameError::Frame(format!("a frame of kind {kind} with {} bytes", payload.len()));
    Ok(match kind {
        ASK => ConsoleFrame::Ask(from_json(&payload)?),
        STARTED => ConsoleFrame::Started,
        INPUT => ConsoleFrame::Input(payload),
        INPUT_END => ConsoleFrame::InputEnd,
        STDOUT => ConsoleFrame::Output { stream: Stream::Stdout, bytes: payload },
        STDERR => ConsoleFrame::Output { stream: Stream::Stderr, bytes: payload },
        TAKEN => ConsoleFrame::Taken(u32::from_le_bytes(payload[..].try_into().map_err(|_| short())?)),
        RESIZE => {
            let [a, b, c, d]: [u8; 4] = payload[..].try_into().map_err(|_| short())?;
            ConsoleFrame::Resize(TerminalSize { rows: u16::from_le_bytes([a, b]), columns: u16::from_le_bytes([c, d]) })
        }
        SIGNAL => match payload[..] {
            [signal] => ConsoleFrame::Signal(signal),
            _ => return Err(short()),
        },
        ALIVE => ConsoleFrame::Alive,
        END => ConsoleFrame::End(from_json(&payload)?),
        other => return Err(FrameError::Frame(format!("{other} is no kind of frame"))),
    })
}

fn put(out: &mut BytesMut, kind: u8, payload: &[u8]) -> Result<(), FrameError> {
    if payload.len() > MAX_PAYLOAD {
        return Err(FrameError::Frame(format!("{} bytes are too long for a frame", payload.len())));
    }
    out.reserve(HEADER + payload.len());
    out.put_u8(kind);
    out.put_u32_le(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    out.put_slice(payload);
    Ok(())
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    serde_json::to_vec(value).map_err(|error| FrameError::Frame(error.to_string()))
}

fn from_json<T: DeserializeOwned>(payload: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(payload).map_err(|error| FrameError::Frame(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Terminal;

    fn all() -> Vec<ConsoleFrame> {
        let size = TerminalSize { rows: 24, columns: 300 };
        vec![
            ConsoleFrame::Ask(ConsoleAsk {
                command: vec!["sh".to_owned(), "-c".to_owned(), "ü\n".to_owned()],
                terminal: Some(Terminal { size, kind: Some("xterm".to_owned()) }),
            }),
            ConsoleFrame::Ask(ConsoleAsk::default()),
            ConsoleFrame::Started,
            ConsoleFrame::Input(Bytes::from_static(&[0, 255, 3])),
            ConsoleFrame::InputEnd,
            ConsoleFrame::Output { stream: Stream::Stdout, bytes: Bytes::from(vec![7; MAX_CONSOLE_DATA]) },
            ConsoleFrame::Output { stream: Stream::Stderr, bytes: Bytes::from_static(b"err") },
            ConsoleFrame::Taken(70_000),
            ConsoleFrame::Resize(size),
            ConsoleFrame::Signal(2),
            ConsoleFrame::Alive,
            ConsoleFrame::End(ConsoleEnd::Exited { code: 7 }),
            ConsoleFrame::End(ConsoleEnd::because("the job is over")),
        ]
    }

    #[test]
    fn frames_come_back_as_they_went_whatever_the_pieces() {
        let mut bytes = BytesMut::new();
        for frame in all() {
            ConsoleCodec.encode(frame, &mut bytes).expect("short enough");
        }
        for piece in [1, 7, 4_096, bytes.len()] {
            let (mut input, mut found) = (BytesMut::new(), Vec::new());
            for part in bytes.chunks(piece) {
                input.extend_from_slice(part);
                while let Some(frame) = ConsoleCodec.decode(&mut input).expect("frames") {
                    found.push(frame);
                }
            }
            assert_eq!(found, all(), "in pieces of {piece}");
            assert!(input.is_empty());
        }
    }

    #[test]
    fn what_is_no_frame_is_refused_before_it_is_waited_for() {
        let wrong: [&[u8]; 6] = [
            &[99, 0, 0, 0, 0],
            &[INPUT, 1, 0, 1, 0],
            &[ASK, 255, 255, 255, 255],
            &[RESIZE, 1, 0, 0, 0, 1],
            &[SIGNAL, 0, 0, 0, 0],
            &[END, 2, 0, 0, 0, b'{', b'}'],
        ];
        for bytes in wrong {
            let mut input = BytesMut::from(bytes);
            assert!(ConsoleCodec.decode(&mut input).is_err(), "{bytes:?}");
        }
    }
}
