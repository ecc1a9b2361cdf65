//! The small single-threaded program inside a sandbox that spawns, streams and ends processes.
//!
//! - [`keeper`]: the agent as a worker's child on the same machine, driven over a socketpair;
//! - [`serve`]: the agent as a server, wherever it is, of the protocol `executr.agent.v1`;
//! - [`init`]: the agent as the first process of a container, which starts a keeper for each driver that calls;
//! - [`host`]: the agent on a host that it was sent to, where nobody keeps it running;
//! - [`relay`]: the agent at the end of two pipes, through which a driver speaks to a keeper;
//! - [`stage`]: the agent as what a container is run from, where no engine does that;
//! - [`attach`]: becoming a program that a driver is connected to;
//! - `spawn`: how a process is made, and why it couldn't be;
//! - `identity`: as whom it runs, and whose its files are;
//! - `directory`: a task's directory and files, made and removed;
//! - `trees`: whole trees of files;
//! - `spare`: an empty directory kept from one task for the next;
//! - `processes`: what runs below this process;
//! - `signals`: signals as something to wait for;
//! - [`cgroup`]: control groups: limits, listing and ending what runs, and removing what dead owners left.
//!
//! A keeper has neither runtime nor threads: one loop waits for everything. Nothing here reads environment or terminal, or
//! prints, or knows jobs other than as the tasks it is told to start.

pub mod attach;
pub mod cgroup;
mod directory;
pub mod host;
mod identity;
pub mod init;
pub mod keeper;
mod processes;
pub mod relay;
pub mod serve;
mod signals;
mod spare;
mod spawn;
pub mod stage;
mod trees;
