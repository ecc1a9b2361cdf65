//! The socket to the driver: whole frames in and out, each direction with one reused buffer.
//!
//! Frames gather in the output buffer and leave together: a short job's start, output and end are one write, so
//! the driver wakes once.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use executr_agent_protocol::frame::{self, FrameError};
use executr_agent_protocol::keeper::v1::{FromKeeper, ToKeeper, from_keeper, to_keeper};
use prost::bytes::BytesMut;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::Fault;

/// How long the first of several frames may wait for company. A person doesn't see it, and most short jobs end
/// within it.
const LINGER: Duration = Duration::from_millis(5);

/// Bytes that don't wait for company.
const ENOUGH: usize = 64 * 1024;

/// Bytes waiting for the driver at which nothing more is taken from the job: it stalls instead, as with any pipe.
const FULL: usize = 256 * 1024;

/// Room made for reading, in bytes.
const READ_ROOM: usize = 16 * 1024;

/// What a read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// Bytes, perhaps whole frames.
    Some,
    /// Nothing yet.
    None,
    /// The driver is gone.
    Closed,
}

/// The socket and its buffers.
#[derive(Debug)]
pub(super) struct Control {
    socket: OwnedFd,
    input: BytesMut,
    output: Vec<u8>,
    written: usize,
    /// When what waits has to leave; `None` when nothing waits.
    leave_at: Option<Instant>,
    /// The socket took less than there was.
    blocked: bool,
}

impl Control {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, input: BytesMut::new(), output: Vec::new(), written: 0, leave_at: None, blocked: false }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Reads once; with `wait` until there is something.
    pub(super) fn receive(&mut self, wait: bool) -> Result<Received, Fault> {
        // Room beyond this is there when a large frame was announced.
        if self.input.capacity() - self.input.len() < READ_ROOM / 2 {
            self.input.reserve(READ_ROOM);
        }
        let flags = if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
        let spare: &mut [MaybeUninit<u8>] = self.input.spare_capacity_mut();
        let read = match recv(&self.socket, spare, flags) {
            Ok((_, 0)) | Err(Errno::CONNRESET) => return Ok(Received::Closed),
            Ok((_, read)) => read,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Received::None),
            Err(error) => return Err(Fault::system("reading from the driver failed")(error)),
        };
        // SAFETY: the kernel has filled that many bytes of the spare capacity.
        unsafe { self.input.set_len(self.input.len() + read) };
        Ok(Received::Some)
    }

    /// The next whole message that was read.
    pub(super) fn next(&mut self) -> Result<Option<to_keeper::Message>, Fault> {
        match frame::split::<ToKeeper>(&mut self.input)? {
            None => Ok(None),
            Some(ToKeeper { message: Some(message) }) => Ok(Some(message)),
            Some(ToKeeper { message: None }) => Err(Fault::Protocol("a message of a kind unknown here".into())),
        }
    }

    /// Puts a message behind those that wait; it may linger for company.
    pub(super) fn queue(&mut self, message: from_keeper::Message) -> Result<(), FrameError> {
        if self.leave_at.is_none() {
            self.leave_at = Some(Instant::now() + LINGER);
        }
        frame::encode(&FromKeeper { message: Some(message) }, &mut self.output)
    }

    /// Puts a message behind those that wait, and has all of them leave now.
    pub(super) fn queue_now(&mut self, message: from_keeper::Message) -> Result<(), Fault> {
        frame::encode(&FromKeeper { message: Some(message) }, &mut self.output)?;
        self.flush()
    }

    /// Writes what has waited long enough, or is enough.
    pub(super) fn flush_due(&mut self) -> Result<(), Fault> {
        let waiting = self.waiting();
        if waiting == 0 || self.blocked {
            return Ok(());
        }
        if waiting >= ENOUGH || self.leave_at.is_none_or(|leave_at| leave_at <= Instant::now()) {
            return self.flush();
        }
        Ok(())
    }

    /// Writes as much as the socket takes.
    pub(super) fn flush(&mut self) -> Result<(), Fault> {
        self.blocked = false;
        while self.waiting() > 0 {
            match send(&self.socket, &self.output[self.written..], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => self.written += sent,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.blocked = true;
                    self.make_room();
                    return Ok(());
                }
                // The driver is gone; reading says so, too.
                Err(Errno::PIPE | Errno::CONNRESET) => self.written = self.output.len(),
                Err(error) => return Err(Fault::system("writing to the driver failed")(error)),
            }
        }
        self.output.clear();
        self.written = 0;
        self.leave_at = None;
        Ok(())
    }

    /// Moves what is left to the front once it is the smaller part, so that the buffer stays bounded.
    fn make_room(&mut self) {
        if self.written > self.waiting() {
            self.output.drain(..self.written);
            self.written = 0;
        }
    }

    /// Bytes that wait to be written.
    pub(super) fn waiting(&self) -> usize {
        self.output.len() - self.written
    }

    /// Whether nothing more should be taken from the job for now.
    pub(super) fn is_full(&self) -> bool {
        self.waiting() >= FULL
    }

    /// Whether writing has to wait until the socket takes more.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// When what waits has to leave, if the socket takes it.
    pub(super) fn leave_at(&self) -> Option<Instant> {
        if self.blocked { None } else { self.leave_at }
    }
}
