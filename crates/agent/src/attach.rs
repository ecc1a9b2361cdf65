//! Becoming a program whose standard input and output are a connection to a driver: how an executor `command` starts the
//! argv that is to start an agent somewhere.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::keeper::Fault;

/// Connects to `socket` and executes the program that `argv` names. Comes back only when that can't be done.
#[must_use]
pub fn exec(socket: &Path, argv: &[OsString]) -> Fault {
    let [program, arguments @ ..] = argv else { return Fault::Protocol("there is no program to start".to_owned()) };
    if let Err(error) = attach(socket) {
        return Fault::Unreachable { socket: socket.to_owned(), source: error };
    }
    let source = Command::new(program).args(arguments).exec();
    Fault::Exec { program: program.to_string_lossy().into_owned(), source }
}

fn attach(socket: &Path) -> io::Result<()> {
    let stream = connect(socket)?;
    rustix::stdio::dup2_stdin(&stream)?;
    rustix::stdio::dup2_stdout(&stream)?;
    Ok(())
}

/// A connection to whoever listens at `socket`.
pub(crate) fn connect(socket: &Path) -> io::Result<UnixStream> {
    let (parent, name) = socket.parent().zip(socket.file_name()).ok_or(io::ErrorKind::InvalidInput)?;
    // By way of its directory: an address holds only 108 bytes.
    let directory = File::open(parent)?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    UnixStream::connect(short)
}
