//! What a failed start means: which file it is about, and what to do.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use executr_agent_protocol::v1::Failure;
use rustix::io::Errno;

/// No process could be made.
pub(super) fn process(errno: Errno) -> Failure {
    let advice = match errno {
        Errno::AGAIN => "too many processes; raise the limit on processes or run fewer jobs",
        Errno::NOMEM => "not enough memory; run fewer jobs",
        _ => "see the system's log",
    };
    failure(errno, format!("no process could be made: {errno}; {advice}"), b"")
}

/// A limit couldn't be set.
pub(super) fn limits(errno: Errno) -> Failure {
    failure(
        errno,
        format!("the limits can't be set: {errno}; lower them, or run the worker with the right to set them"),
        b"",
    )
}

/// The process couldn't become who it is to run as.
pub(super) fn user(errno: Errno, user: &str) -> Failure {
    let whom = if user.is_empty() { "the step's user" } else { user };
    let message =
        format!("it can't run as {whom}: {errno}; the agent must be root in its place, with SETUID and SETGID");
    failure(errno, message, b"")
}

/// The directory couldn't be entered.
pub(super) fn chdir(errno: Errno, directory: &[u8]) -> Failure {
    let shown = text(directory);
    let message = match errno {
        Errno::NOENT => {
            format!("no such directory: {shown}; make it before the job starts, or name another")
        }
        Errno::NOTDIR => {
            format!("not a directory: {shown}; name a directory for the job to start in")
        }
        Errno::ACCESS => {
            format!("the directory {shown} may not be entered; give the worker's user the right to")
        }
        _ => format!("the directory {shown} can't be entered: {errno}"),
    };
    failure(errno, message, directory)
}

/// The program couldn't be executed. `tried` is the file the error is about; `directory` is where relative paths
/// begin.
pub(super) fn exec(errno: Errno, program: &[u8], tried: &[u8], search_path: &[u8], directory: &[u8]) -> Failure {
    let name = text(program);
    if !program.contains(&b'/') && matches!(errno, Errno::NOENT | Errno::NOTDIR) {
        let places = text(search_path);
        let message = format!("{name} not found in PATH ({places}); install it, or give its full path");
        return failure(Errno::NOENT, message, program);
    }
    let file = Path::new(OsStr::from_bytes(directory)).join(OsStr::from_bytes(tried));
    let shown = file.display();
    let message = match errno {
        Errno::NOENT if file.symlink_metadata().is_ok() => format!(
            "{shown} exists, but what it needs to run doesn't: the interpreter in its first line, its dynamic loader, or what it links to"
        ),
        Errno::NOENT => format!("no such program: {shown}"),
        Errno::NOTDIR => {
            format!("no such program: {shown}; a part of that path is not a directory")
        }
        Errno::ACCESS if file.is_dir() => format!("{shown} is a directory, not a program"),
        Errno::ACCESS => format!(
            "{shown} is not executable; set its execute bit (chmod +x), and see that its file system isn't mounted noexec"
        ),
        Errno::NOEXEC => format!(
            "{shown} is not executable: neither a program for this machine nor a script whose first line names an interpreter (#!)"
        ),
        Errno::TOOBIG => {
            format!("arguments and environment of {name} are too long for this machine; pass large data in a file")
        }
        Errno::TXTBSY => format!("{shown} is being written; start it when it is complete"),
        _ => format!("{shown} can't be executed: {errno}"),
    };
    failure(errno, message, file.as_os_str().as_bytes())
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn failure(errno: Errno, message: String, path: &[u8]) -> Failure {
    Failure { errno: errno.raw_os_error(), message, path: path.to_vec().into() }
}
