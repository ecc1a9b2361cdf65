//! Jobs on other hosts, over SSH. Nothing is asked of a host but a login shell and a writable directory.
//!
//! - [`options`]: what a workflow says of hosts; `target`: one of them, as the client is told;
//! - `client`: the system's OpenSSH client, whose whole set-up counts;
//! - `session`: one of its sessions, up to the mark (`preamble`) behind which the bytes begin that were asked for;
//! - `script`: what a host's shell is asked to do; `agent_copy`: the program it is sent;
//! - [`hosts`]: the hosts of a worker, and what leads to them; `connection`: one of those, with an agent at its other end;
//! - [`workspace`]: jobs there;
//! - `notes`: that something of a process is on a host;
//! - [`sweeper`]: what dead workers left there;
//! - `dial`: the way to a host's agent, as often as it has to be called;
//! - `health`: whose turn it is;
//! - [`error`], `diagnosis`: why there is no agent, by host and by how far one got.

mod agent_copy;
mod client;
mod connection;
mod diagnosis;
mod dial;
mod error;
mod health;
mod hosts;
mod notes;
mod options;
mod preamble;
mod script;
mod session;
mod sweeper;
mod target;
mod workspace;

pub use client::Client;
pub use error::{Phase, SshError};
pub use hosts::{Seen, SshHostOptions, SshHosts};
pub use options::{Mode, SshOptions};
pub use sweeper::SshSweeper;
pub use target::Target;
pub use workspace::SshWorkspace;
