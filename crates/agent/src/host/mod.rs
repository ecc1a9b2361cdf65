//! The agent on a host that it was sent to, where nobody keeps it running: whoever calls finds it, or has it begin.
//!
//! - [`reach`]: standard input and output become a stream to the agent of an owner, which is started if it isn't there;
//! - [`dwell`]: that agent: a background process with a directory of its own, which goes with it;
//! - [`leave`]: tells it that nobody will call any more;
//! - [`sweep`]: removes what agents left that were killed, and programs nobody has used for long;
//! - [`verify`]: whether this program is the one that was sent.
//!
//! ```text
//! DIRECTORY/agent/DIGEST   this program
//! DIRECTORY/at/ID/         what one owner has here; locked while its agent lives
//! DIRECTORY/at/ID/agent    its socket
//! ```
//!
//! Each answer begins with a mark, `NUL executr WORD REST NUL`: before it stands whatever the host's shells print.

mod dwell;
mod leave;
mod reach;
mod sweep;
mod verify;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{self, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

pub use dwell::dwell;
pub use leave::leave;
pub use reach::reach;
pub use sweep::sweep;
pub use verify::verify;

/// The name of the socket, from its owner's directory. It listens and is called by this name alone: an address holds only
/// 108 bytes, and a directory may lie deep.
const SOCKET: &str = "agent";

/// Why a host doesn't do.
#[derive(Debug, thiserror::Error)]
pub enum HostFault {
    /// A directory can't be used.
    #[error("{path} can't be used: {source}", path = path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others could put programs or jobs there.
    #[error("{path} can be written by others, or isn't this user's; `chmod go-w` it, or name another directory", path = path.display())]
    Exposed {
        /// Which.
        path: PathBuf,
    },
    /// The agent doesn't come up.
    #[error("the agent doesn't come up: {0}")]
    Silent(String),
    /// There is no such agent.
    #[error("the agent {process} can't be told to leave: {source}")]
    Gone {
        /// Its process.
        process: String,
        /// What the system said.
        source: io::Error,
    },
    /// This program isn't what was sent.
    #[error("the agent's program arrived damaged: it has the SHA-256 {found}, not {expected}")]
    Damaged {
        /// What it was to be.
        expected: String,
        /// What it is.
        found: String,
    },
}

impl HostFault {
    fn directory(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::Directory { path, source }
    }
}

/// Where an owner's things are.
fn place(directory: &Path, id: &str) -> PathBuf {
    directory.join("at").join(id)
}

/// Says where the bytes begin.
fn mark(word: &str, rest: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "\0executr {word} {rest}\0")?;
    out.flush()
}

/// A lock on an owner's directory, held as long as the descriptor is open; `None` while another holds it.
fn lock(place: &Path) -> Result<Option<rustix::fd::OwnedFd>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = fs::open(place, flags, Mode::empty())?;
    match fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::AGAIN) => return Ok(None),
        Err(error) => return Err(error),
    }
    // Whoever removed it held it until then.
    let (ours, there) = (fs::fstat(&directory)?, fs::lstat(place)?);
    if (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino) { Ok(Some(directory)) } else { Err(Errno::NOENT) }
}
