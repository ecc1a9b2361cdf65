//! The agent as a program of its own. Without arguments it is a keeper, as `executr keeper` is within the one program
//! people install, or speaks to one for a driver that has no socket; with `serve SOCKET [SECONDS]` it is the first process
//! of a container; with `connect SOCKET PROGRAM [ARGUMENT…]` it becomes that program; with `stage …` it runs a container.

use std::ffi::OsString;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use executr_agent::{attach, init, keeper, relay, stage};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let served = match &arguments[..] {
        [] if !relay::has_socket() => relay::run(),
        [] => {
            // SAFETY: descriptor 0 is the socket a driver hands over; nothing else in this program uses it.
            let control = unsafe { OwnedFd::from_raw_fd(0) };
            keeper::run(control)
        }
        [word, socket, rest @ ..] if word == "serve" => {
            let seconds = rest.first().and_then(|seconds| seconds.to_str()?.parse().ok());
            init::run(Path::new(socket), seconds.map_or(init::PATIENCE, Duration::from_secs))
        }
        [word, rest @ ..] if word == "stage" => match stage::run(rest) {
            Ok(code) => return ExitCode::from(code),
            Err(fault) => Err(fault),
        },
        [word, socket, argv @ ..] if word == "connect" => Err(attach::exec(Path::new(socket), argv)),
        _ => Err(keeper::Fault::Protocol("there is no such argument".to_owned())),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            use std::io::Write;
            // Standard error is the driver's own; if even that is gone, the exit code must do.
            let _ = writeln!(std::io::stderr(), "executr-agent: {fault}");
            ExitCode::FAILURE
        }
    }
}
