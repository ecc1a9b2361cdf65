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
//! executr-agent reach DIRECTORY ID SECONDS    passes them on to the agent of ID on this host, which is started if need be
//! executr-agent dwell DIRECTORY ID SECONDS    is that agent
//! executr-agent leave PROCESS                 tells the agent that is this process that nobody will call any more
//! executr-agent sweep DIRECTORY [ID…]         removes what dead ones left, and those of owners that are dead
//! executr-agent verify DIGEST                 says by its exit code whether this is its own SHA-256
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
use executr_agent::{attach, host, init, keeper, relay, serve, stage};

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
/// Of whoever logs in: the steps of jobs find it, too.
#[expect(clippy::disallowed_methods, reason = "this is the program, which hands it on")]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

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
        [word, directory, id, seconds] if word == "reach" => {
            let variables = ["PATH", "USER", "LANG", "SHELL"].map(|name| (name, variable(name)));
            host::reach(Path::new(directory), &id.to_string_lossy(), &seconds.to_string_lossy(), &variables);
            Ok(())
        }
        [word, directory, id, seconds] if word == "dwell" => {
            let patience = seconds.to_str().and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
            let patience = patience.ok_or_else(|| Fault::Usage("SECONDS is a number".to_owned()))?;
            host::dwell(Path::new(directory), &id.to_string_lossy(), patience)
        }
        [word, directory, ids @ ..] if word == "sweep" => {
            let ids: Vec<_> = ids.iter().filter_map(|id| id.to_str()).collect();
            host::sweep(Path::new(directory), &ids);
            Ok(())
        }
        [word, digest] if word == "verify" => Ok(host::verify(&digest.to_string_lossy())?),
        [word, process] if word == "leave" => Ok(host::leave(&process.to_string_lossy())?),
        [word, socket] if word == "attach" => relay::attach(Path::new(socket)),
        [word, socket, argv @ ..] if word == "connect" => Err(attach::exec(Path::new(socket), argv)),
        _ => Err(Fault::Usage("there is no such argument".to_owned())),
    };
    served.map(|()| 0)
}
