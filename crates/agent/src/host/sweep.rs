//! What agents left that were killed, and programs nobody has used for long.

use std::fs::{DirEntry, read_dir, remove_file};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::reach::connect;
use super::{lock, mark, place};
use crate::directory;

/// For how long a program nobody uses is kept: whoever sent it is likely to want it again.
const UNUSED: Duration = Duration::from_secs(30 * 24 * 3600);

/// For how long a part of one may be on its way.
const PARTIAL: Duration = Duration::from_secs(24 * 3600);

/// How long an agent may take to leave, and then to be gone.
const LEAVING: Duration = Duration::from_secs(5);
const DYING: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(5);

/// Removes directories whose agent is dead, and old programs; those of `ids`, whose owners are known to be dead, also if their
/// agents still wait for them. Says so by the mark `swept COUNT PROBLEM`, of which the second is empty when nothing stays.
pub fn sweep(below: &Path, ids: &[&str]) {
    let (mut count, mut problem) = (0_u32, String::new());
    for id in ids.iter().filter(|id| place(below, id).is_dir()) {
        match end(&place(below, id)) {
            Ok(held) => drop(held),
            Err(error) => problem = format!("{id}: {error}"),
        }
    }
    for entry in entries(&below.join("at")) {
        let path = entry.path();
        let Ok(Some(_held)) = lock(&path) else { continue };
        match directory::remove(&path) {
            Ok(()) => count += 1,
            Err(error) => problem = error.to_string(),
        }
    }
    for entry in entries(&below.join("agent")) {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let most = if name.starts_with("part-") || name.starts_with("try-") { PARTIAL } else { UNUSED };
        let age = entry.metadata().and_then(|found| found.modified()).ok();
        let age = age.and_then(|modified| SystemTime::now().duration_since(modified).ok());
        if age.is_some_and(|age| age > most) {
            // Somebody else's may stay.
            drop(remove_file(entry.path()));
        }
    }
    // Nobody may be listening.
    drop(mark("swept", &format!("{count} {problem}")));
}

fn entries(directory: &Path) -> impl Iterator<Item = DirEntry> {
    read_dir(directory).into_iter().flatten().flatten()
}

/// Ends the agent that has a directory, and what it runs.
fn end(place: &Path) -> io::Result<Option<OwnedFd>> {
    let begin = Instant::now();
    while begin.elapsed() < LEAVING + DYING {
        match lock(place) {
            Ok(None) => {}
            Ok(held) => return Ok(held),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        if let Some(agent) = connect(place)
            && let Ok(peer) = rustix::net::sockopt::socket_peercred(&agent)
        {
            // One that doesn't go takes what it runs with it: keepers end that when their agent is gone.
            let signal = if begin.elapsed() < LEAVING { Signal::TERM } else { Signal::KILL };
            let agent: Pid = peer.pid;
            let _ = kill_process(agent, signal);
        }
        thread::sleep(LOOK);
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "its agent doesn't end"))
}
