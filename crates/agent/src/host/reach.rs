//! Standard input and output become a stream to the agent of an owner.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{HostFault, SOCKET, mark, place};

/// How long an agent may take until it answers. Bounds a broken host, not a slow one.
const START: Duration = Duration::from_secs(30);
/// How long after each look whether it does.
const LOOK: Duration = Duration::from_micros(500);

/// Bytes passed on at once.
const CHUNK: usize = 256 * 1024;

/// Passes bytes on between standard input and output and the agent of `id` below `directory`, behind the mark `at PLACE`. One
/// that doesn't run is started, and stays `patience` (in seconds) after its last caller. In lines behind the place the mark has
/// those of `variables` that are set. Where that can't be, the mark is
/// `failed PROBLEM`.
pub fn reach(directory: &Path, id: &str, patience: &str, variables: &[(&str, Option<OsString>)]) {
    let place = place(directory, id);
    let agent = connect(&place).map_or_else(|| start(directory, id, patience, &place), Ok);
    let told = match &agent {
        Ok(_) => mark("at", &told(&place, variables)),
        Err(error) => mark("failed", &error.to_string()),
    };
    if let (Ok(()), Ok(agent)) = (told, agent) {
        pass_on(&agent);
    }
}

/// A connection to the agent of a directory, to which this process goes.
pub(super) fn connect(place: &Path) -> Option<UnixStream> {
    // Called by its name alone, which may be as long as it likes.
    rustix::process::chdir(place).ok()?;
    UnixStream::connect(SOCKET).ok()
}

/// The place, and beneath it `KEY=VALUE` in a line for each variable that whoever logs in has.
fn told(place: &Path, variables: &[(&str, Option<OsString>)]) -> String {
    let mut told = place.to_string_lossy().into_owned();
    for (name, value) in variables {
        if let Some(value) = value.as_ref().and_then(|value| value.to_str()).filter(|value| !value.contains('\n')) {
            told.push_str(&format!("\n{name}={value}"));
        }
    }
    told
}

fn start(directory: &Path, id: &str, patience: &str, place: &Path) -> Result<UnixStream, HostFault> {
    let own = |words: &[&str]| {
        let mut program = Command::new("/proc/self/exe");
        program.arg(words[0]).arg(directory).args(&words[1..]).env_clear().current_dir("/");
        program.stdin(Stdio::null()).stdout(Stdio::null());
        program
    };
    let silent = |error: io::Error| HostFault::Silent(error.to_string());
    let mut dwelling = own(&["dwell", id, patience]).stderr(Stdio::piped()).spawn().map_err(silent)?;
    let deadline = Instant::now() + START;
    let agent = loop {
        if let Some(agent) = connect(place) {
            break agent;
        }
        if let Some(status) = dwelling.try_wait().map_err(silent)?
            && !status.success()
        {
            return Err(HostFault::Silent(last_words(&mut dwelling)));
        }
        if Instant::now() >= deadline {
            return Err(HostFault::Silent(format!("no answer within {} s", START.as_secs())));
        }
        thread::sleep(LOOK);
    };
    // Nobody waits for it, and whether it could be started makes no difference.
    drop(own(&["sweep"]).stderr(Stdio::null()).spawn());
    Ok(agent)
}

fn last_words(ended: &mut Child) -> String {
    let mut said = String::new();
    if let Some(mut stderr) = ended.stderr.take() {
        drop(stderr.read_to_string(&mut said));
    }
    said.trim().trim_start_matches("executr-agent: ").to_owned()
}

/// Passes bytes on until either side ends.
fn pass_on(agent: &UnixStream) {
    let Ok(mut inward) = agent.try_clone() else { return };
    thread::spawn(move || {
        copy(&mut io::stdin().lock(), &mut inward);
        // The other side is gone; what was still on the way to it has nobody who waits for it.
        drop(inward.shutdown(Shutdown::Both));
    });
    // Not through the buffer of lines that standard output has.
    if let Ok(outward) = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3) {
        copy(&mut &*agent, &mut std::fs::File::from(outward));
    }
}

fn copy(from: &mut impl Read, to: &mut impl Write) {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                if to.write_all(&buffer[..length]).is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
