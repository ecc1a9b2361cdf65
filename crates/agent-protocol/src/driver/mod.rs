//! The calling sides.
//!
//! An [`Agent`] is somewhere, over a stream of bytes that may be cut, and runs any number of [`AgentTask`]s at once.
//!
//! A [`Keeper`] is one agent process, on this machine or behind the socket of another agent, reused from task to task, one task at a time; a [`Task`]
//! borrows it from start to end and yields what happens, in order. Reads go straight from the socket into one
//! reused buffer: no tokio task, channel or timer stands between an agent and its caller, because what is spent
//! here is spent once per job.
//!
//! Nothing here decides what to run, keeps output or knows of leases.

#[cfg(feature = "driver")]
mod agent;
mod error;
mod event;
mod keeper;
mod task;
mod wire;

#[cfg(feature = "driver")]
pub use agent::{
    Agent, AgentError, AgentFacts, AgentOptions, AgentTask, Dial, Duplex, FileContent, KnownManifests, OneStream,
    Packed, PutTree, TakeTree, TaskNote, TcpDial, Token, Touched, TreeError, TreeWatch, UnixDial, Wired,
};
pub use error::KeeperError;
pub use event::{Ended, Event, Exit, Failure, Offers, PeakMemory, StartFailed, StartPhase, Stream, Usage};
pub use keeper::{Cgroups, Keeper, KeeperOptions, KeeperSource};
pub use task::{Task, TaskMessage};

pub use crate::v1::{File, Limits, Pipe, ResourceLimit, StartTask, Terminal, start_task::Input};
