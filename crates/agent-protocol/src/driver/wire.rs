//! The socket to one agent: whole frames in, whole frames out, each direction with one reused buffer.
//!
//! Both directions survive a dropped future: bytes read stay in the buffer, bytes not yet written stay queued.
//!
//! The runtime watches for reading only: watched for writing, too, the socket would wake us each time the agent
//! has taken a message. Writing is watched for the rare moments when the socket is full.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use bytes::BytesMut;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::frame::{self, FrameError};
use crate::keeper::v1::{FromKeeper, ToKeeper, from_keeper, to_keeper};

/// Room made for reading when the buffer is used up, in bytes. Output comes in frames of up to 64 KiB, and a
/// larger read takes several with one system call.
const READ_ROOM: usize = 128 * 1024;

/// Room for an agent that says little, in bytes.
const SMALL_READ_ROOM: usize = 4 * 1024;

/// One connection.
#[derive(Debug)]
pub(super) struct Wire {
    socket: AsyncFd<OwnedFd>,
    input: BytesMut,
    /// Bytes the last read brought: much read means much to come.
    last_read: usize,
    output: Vec<u8>,
    written: usize,
}

impl Wire {
    /// A connection, and the agent's end of it.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        Ok((Self::over(ours)?, theirs))
    }

    /// A connection to whoever listens at `path`.
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let (parent, name) = path.parent().zip(path.file_name()).ok_or(io::ErrorKind::InvalidInput)?;
        // By way of its directory: an address holds only 108 bytes.
        let directory = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
        let address = SocketAddrUnix::new(&short)?;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // Answered at once or not at all, as long as fewer wait than may.
        rustix::net::connect(&socket, &address)?;
        Self::over(socket)
    }

    /// A connection over a connected socket that somebody else keeps, too.
    pub(super) fn on(socket: &OwnedFd) -> io::Result<Self> {
        Self::over(socket.try_clone()?)
    }

    fn over(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            socket: watch(socket, Interest::READABLE)?,
            input: BytesMut::new(),
            last_read: 0,
            output: Vec::new(),
            written: 0,
        })
    }

    /// Puts a message behind those that wait to be written.
    pub(super) fn queue(&mut self, message: to_keeper::Message) -> Result<(), FrameError> {
        frame::encode(&ToKeeper { message: Some(message) }, &mut self.output)
    }

    /// Writes as much as fits now; whether that was all.
    pub(super) fn try_flush(&mut self) -> io::Result<bool> {
        while self.written < self.output.len() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::send(&self.socket, &self.output[self.written..], flags) {
                Ok(written) => self.written += written,
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
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
        if self.try_flush()? {
            return Ok(());
        }
        let writable = watch(self.socket.get_ref().try_clone()?, Interest::WRITABLE)?;
        loop {
            let mut guard = writable.writable().await?;
            if self.try_flush()? {
                return Ok(());
            }
            guard.clear_ready();
        }
    }

    /// The next message; `None` when the agent is gone.
    pub(super) async fn next(&mut self) -> Result<Option<from_keeper::Message>, ReadError> {
        loop {
            if let Some(frame) = frame::split::<FromKeeper>(&mut self.input)? {
                return Ok(Some(frame.message.ok_or(ReadError::Empty)?));
            }
            let room = if self.last_read < SMALL_READ_ROOM { SMALL_READ_ROOM } else { READ_ROOM };
            if self.input.capacity() - self.input.len() < room / 2 {
                self.input.reserve(room);
            }
            match self.read().await? {
                0 => return Ok(None),
                read => self.last_read = read,
            }
        }
    }

    /// Reads once; 0 at the end.
    async fn read(&mut self) -> io::Result<usize> {
        loop {
            let mut guard = self.socket.readable().await?;
            let spare: &mut [MaybeUninit<u8>] = self.input.spare_capacity_mut();
            let room = spare.len();
            match rustix::net::recv(&self.socket, spare, RecvFlags::DONTWAIT) {
                Ok((_, read)) => {
                    // Less than there was room for was all there was: the next read needn't find that out.
                    if read > 0 && read < room {
                        guard.clear_ready();
                    }
                    // SAFETY: the kernel has filled that many bytes of the spare capacity.
                    unsafe { self.input.set_len(self.input.len() + read) };
                    return Ok(read);
                }
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                // An agent that dies with unread words in its socket resets it: gone all the same.
                Err(Errno::CONNRESET) => return Ok(0),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Says that nothing more will be said: the agent ends everything and exits.
    pub(super) fn hang_up(&self) {
        // An error means the other side is gone already.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
    }
}

fn watch(socket: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the AsyncFd owns the descriptor, which so stays open and the same for as long as it is watched; nobody
    // else is given its number to close or replace.
    let watched = unsafe { AsyncFd::register_with_interest(socket, interest) };
    Ok(watched?)
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
