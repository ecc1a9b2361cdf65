//! How a stream to an agent is had.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use rustix::fs::{Mode, OFlags};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// A stream of bytes, both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// A way to an agent.
#[async_trait]
pub trait Dial: Send + Sync {
    /// A fresh stream, each time to the same agent.
    ///
    /// # Errors
    /// When there is none now; it is asked for again while patience lasts.
    async fn dial(&self) -> io::Result<Box<dyn Duplex>>;
}

/// An agent that listens on a Unix socket of this machine.
#[derive(Clone, Debug)]
pub struct UnixDial(pub PathBuf);

#[async_trait]
impl Dial for UnixDial {
    async fn dial(&self) -> io::Result<Box<dyn Duplex>> {
        let (parent, name) = self.0.parent().zip(self.0.file_name()).ok_or(io::ErrorKind::InvalidInput)?;
        // By way of its directory: an address holds only 108 bytes.
        let directory = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
        Ok(Box::new(UnixStream::connect(short).await?))
    }
}

/// An agent that listens on TCP.
#[derive(Clone, Debug)]
pub struct TcpDial(pub SocketAddr);

#[async_trait]
impl Dial for TcpDial {
    async fn dial(&self) -> io::Result<Box<dyn Duplex>> {
        let stream = TcpStream::connect(self.0).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

/// The one stream there is: when it is cut, the agent is lost.
pub struct OneStream(Mutex<Option<Box<dyn Duplex>>>);

impl OneStream {
    /// What is to be spoken over.
    #[must_use]
    pub fn new(stream: impl Duplex + 'static) -> Self {
        Self(Mutex::new(Some(Box::new(stream))))
    }
}

#[async_trait]
impl Dial for OneStream {
    async fn dial(&self) -> io::Result<Box<dyn Duplex>> {
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        stream.ok_or_else(|| io::Error::new(io::ErrorKind::BrokenPipe, "the only stream to the agent has ended"))
    }
}
