//! The agent as a program of its own.
//!
//! ```text
//! executr-agent serve SOCKET [SECONDS]        the first process of a container, so far with a keeper for each caller
//! executr-agent serve --socket PATH           serves callers on a Unix socket
//!                     --tcp [ADDRESS:]PORT --token-file PATH      on TCP; tells its address in one line
//!                     --stdio                 one caller, at the other end of standard input and output
//!                     [--patience SECONDS]    how long it stays without one
//!                     [--limits]              limits may be asked for
//! executr-agent attach SOCKET                 passes standard input and output on to an agent that serves SOCKET
//! executr-agent connect SOCKET PROGRAM [ARGUMENT…]                becomes that program, connected to SOCKET
//! executr-agent stage …                       runs a container
//! executr-agent keeper                        a keeper, over the socket that is its standard input
//! executr-agent                               a keeper for a driver at the other end of standard input and output
//! ```

use std::ffi::OsString;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use executr_agent::keeper::Fault;
use executr_agent::{attach, init, keeper, relay, serve, stage};

mod arguments;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match run(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(fault) => {
            use std::io::Write;
            // Standard error is the driver's own; if even that is gone, the exit code must do.
            let _ = writeln!(std::io::stderr(), "executr-agent: {fault}");
            ExitCode::FAILURE
        }
    }
}

/// What it is told to be; its exit code.
fn run(arguments: &[OsString]) -> Result<u8, Fault> {
    let be_keeper = || {
        // SAFETY: descriptor 0 is the socket a driver hands over; nothing else in this program uses it.
        let control = unsafe { OwnedFd::from_raw_fd(0) };
        keeper::run(control)
    };
    let served = match arguments {
        [] if !relay::has_socket() => relay::run(),
        [] => be_keeper(),
        [word] if word == "keeper" => be_keeper(),
        [word, first, ..] if word == "serve" && first.to_string_lossy().starts_with("--") => {
            serve::run(arguments::options(&arguments[1..])?)
        }
        [word, socket, rest @ ..] if word == "serve" => {
            let seconds = rest.first().and_then(|seconds| seconds.to_str()?.parse().ok());
            init::run(Path::new(socket), seconds.map_or(init::PATIENCE, Duration::from_secs))
        }
        [word, rest @ ..] if word == "stage" => return stage::run(rest),
        [word, socket] if word == "attach" => relay::attach(Path::new(socket)),
        [word, socket, argv @ ..] if word == "connect" => Err(attach::exec(Path::new(socket), argv)),
        _ => Err(Fault::Usage("there is no such argument".to_owned())),
    };
    served.map(|()| 0)
}
