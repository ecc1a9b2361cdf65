//! The socket to one agent: whole frames in, whole frames out, each direction with one reused buffer.
//!
//! Both directions survive a dropped future: bytes read stay in the buffer, bytes not yet written stay queued.

use std::io;
use std::os::fd::OwnedFd;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use crate::frame::{self, FrameError};
use crate::v1::{FromAgent, ToAgent, from_agent, to_agent};

/// Room made for reading when the buffer is used up, in bytes. Output comes in frames of up to 64 KiB, and a
/// larger read takes several with one system call.
const READ_ROOM: usize = 128 * 1024;

/// Room for an agent that says little, in bytes.
const SMALL_READ_ROOM: usize = 4 * 1024;

/// One connection.
#[derive(Debug)]
pub(super) struct Wire {
    socket: UnixStream,
    input: BytesMut,
    /// Bytes the last read brought: much read means much to come.
    last_read: usize,
    output: Vec<u8>,
    written: usize,
}

impl Wire {
    /// A connection, and the agent's end of it.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let wire = Self {
            socket: UnixStream::from_std(ours)?,
            input: BytesMut::new(),
            last_read: 0,
            output: Vec::new(),
            written: 0,
        };
        Ok((wire, theirs.into()))
    }

    /// Puts a message behind those that wait to be written.
    pub(super) fn queue(&mut self, message: to_agent::Message) -> Result<(), FrameError> {
        frame::encode(&ToAgent { message: Some(message) }, &mut self.output)
    }

    /// Writes as much as fits now; whether that was all.
    pub(super) fn try_flush(&mut self) -> io::Result<bool> {
        while self.written < self.output.len() {
            match self.socket.try_write(&self.output[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.written = 0;
        self.output.clear();
        // One large script must not stay in memory for the life of the keeper.
        self.output.shrink_to(READ_ROOM);
        Ok(true)
    }

    /// Writes everything queued. The agent always reads, so this ends.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        while !self.try_flush()? {
            self.socket.writable().await?;
        }
        Ok(())
    }

    /// The next message; `None` when the agent is gone.
    pub(super) async fn next(&mut self) -> Result<Option<from_agent::Message>, ReadError> {
        loop {
            if let Some(frame) = frame::split::<FromAgent>(&mut self.input)? {
                return Ok(Some(frame.message.ok_or(ReadError::Empty)?));
            }
            let room = if self.last_read < SMALL_READ_ROOM { SMALL_READ_ROOM } else { READ_ROOM };
            if self.input.capacity() - self.input.len() < room / 2 {
                self.input.reserve(room);
            }
            match self.socket.read_buf(&mut self.input).await {
                Ok(0) => return Ok(None),
                Ok(read) => self.last_read = read,
                // An agent that dies with unread words in its socket resets it: gone all the same.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Says that nothing more will be said: the agent ends everything and exits.
    pub(super) fn hang_up(&self) {
        // An error means the other side is gone already.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write);
    }
}

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("a message of a kind this driver doesn't know")]
    Empty,
}
