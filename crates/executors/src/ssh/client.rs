//! The system's OpenSSH client: what it is told besides the user's own configuration.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::target::Target;

/// How long, in seconds, a connection stays that nobody uses: one that is needed again is there, and one whose owner was
/// killed goes by itself.
const PERSIST: u32 = 15;

/// The client's program and its surroundings.
#[derive(Clone, Debug)]
pub struct Client {
    /// The program.
    pub program: PathBuf,
    /// Its whole environment: its agent's socket, and whatever the user's configuration makes use of.
    pub env: BTreeMap<OsString, OsString>,
}

impl Default for Client {
    fn default() -> Self {
        Self { program: PathBuf::from("ssh"), env: BTreeMap::new() }
    }
}

/// What counts whatever the user's configuration says: nobody can answer questions, nothing but bytes passes through, and what
/// it says of errors is what is known here.
const ALWAYS: [&str; 12] = [
    "BatchMode=yes",
    "LogLevel=INFO",
    "RequestTTY=no",
    "RemoteCommand=none",
    "PermitLocalCommand=no",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "EscapeChar=none",
    "ServerAliveInterval=10",
    "ServerAliveCountMax=3",
    "ControlMaster=auto",
];

impl Client {
    /// One session: `command` for the login shell of `target`'s user, over the connection of `control`, which is made if it
    /// isn't there.
    pub(super) fn session(&self, control: &Path, target: &Target, command: &str) -> Command {
        let mut client = self.with(control);
        client.arg("-T").args(target.arguments()).arg(command);
        client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        client
    }

    /// Ends the connection of `control`, if there is one.
    pub(super) fn end(&self, control: &Path, target: &Target) -> Command {
        let mut client = self.with(control);
        client.args(["-O", "exit"]).args(target.arguments());
        client.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        client
    }

    fn with(&self, control: &Path) -> Command {
        let mut client = Command::new(&self.program);
        // What is said first counts.
        for option in ALWAYS {
            client.arg("-o").arg(option);
        }
        client.arg("-o").arg(format!("ControlPersist={PERSIST}"));
        let mut path = OsString::from("ControlPath=");
        path.push(control);
        client.arg("-o").arg(path);
        client.env_clear().envs(&self.env).env("LC_ALL", "C").env("LANG", "C");
        // A terminal's Ctrl-C is for the worker, which ends things in order.
        client.process_group(0);
        client
    }
}
