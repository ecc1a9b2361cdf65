//! The agent of an owner: a background process with a directory of its own, which goes with it.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use executr_agent_protocol::driver::Cgroups;
use rustix::fs::{Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;

use super::{HostFault, SOCKET, lock, place};
use crate::directory;
use crate::keeper::Fault;
use crate::serve::{self, Endpoint, Options};

/// Serves `id` below `directory` until nobody has called for `patience`, and removes then what it had there. Does nothing
/// when there is another that does so. To be called first thing in a process.
///
/// # Errors
/// When the directory doesn't do, or the agent can't go on.
pub fn dwell(directory: &Path, id: &str, patience: Duration) -> Result<(), Fault> {
    // The session of whoever called first is over before this is.
    let _ = rustix::process::setsid();
    let place = place(directory, id);
    let Some(_held) = move_in(directory, &place).map_err(Fault::Host)? else { return Ok(()) };
    used();
    let endpoint = Endpoint::Socket(PathBuf::from(".").join(SOCKET));
    let served = serve::run(Options { endpoint, patience, cgroups: Cgroups::WhereWritable });
    let _ = rustix::process::chdir("/");
    let removed = directory::remove(&place);
    served?;
    removed.map_err(|error| Fault::Host(HostFault::Directory { path: place, source: io::Error::other(error) }))
}

/// Makes the owner's directory, empty, and goes there; `None` when somebody lives there.
fn move_in(directory: &Path, place: &Path) -> Result<Option<rustix::fd::OwnedFd>, HostFault> {
    let failed = |path: &Path, error: Errno| HostFault::Directory { path: path.to_owned(), source: error.into() };
    let above = place.parent().unwrap_or(directory);
    private(above)?;
    loop {
        let made = DirBuilder::new().mode(0o700).create(place);
        match made {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(HostFault::directory(place)(error)),
        }
        let held = match lock(place) {
            Ok(Some(held)) => held,
            Ok(None) => return Ok(None),
            // Swept a moment ago.
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(failed(place, error)),
        };
        // What another of this owner left was lost with it.
        for entry in std::fs::read_dir(place).map_err(HostFault::directory(place))?.flatten() {
            let path = entry.path();
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_directory {
                let removed = directory::remove(&path).map_err(io::Error::other);
                removed.map_err(HostFault::directory(&path))?;
            } else {
                std::fs::remove_file(&path).map_err(HostFault::directory(&path))?;
            }
        }
        rustix::process::chdir(place).map_err(|error| failed(place, error))?;
        return Ok(Some(held));
    }
}

/// Makes a directory that only this user can enter, or sees to it that nobody else can write to it.
fn private(path: &Path) -> Result<(), HostFault> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(HostFault::directory(path)(error)),
    }
    let found = std::fs::symlink_metadata(path).map_err(HostFault::directory(path))?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(HostFault::Exposed { path: path.to_owned() });
    }
    if found.mode() & 0o077 != 0 {
        std::fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(HostFault::directory(path))?;
    }
    Ok(())
}

/// Notes that this program is in use: what nobody uses goes some day.
fn used() {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    if let Ok(program) = std::fs::read_link("/proc/self/exe") {
        // It may not be there under this name any more; then nothing needs to know.
        let _ = rustix::fs::utimensat(rustix::fs::CWD, &program, &times, rustix::fs::AtFlags::empty());
    }
}
