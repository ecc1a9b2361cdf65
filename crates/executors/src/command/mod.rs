//! Jobs wherever a command of somebody's own leads: an argv whose standard input and output is a stream of bytes to an
//! agent that it starts, in a sandbox of bubblewrap, in another namespace, behind a wrapper.
//!
//! - [`options`]: the argv, and what takes the place of its placeholders;
//! - [`workspace`]: an argv for each job: its directories, its stream, the agent behind it;
//! - `process`: the argv that runs, and how it ended;
//! - `sandbox`: one job's place behind it;
//! - [`error`]: why there is none.
//!
//! ```text
//! SCRATCH/stream   the socket that becomes standard input and output of the argv; gone once it has
//! SCRATCH/jobs     {job_directory}: the job directory and what goes with it, at the same path on both sides
//! ```
//!
//! With a `directory` of its own the agent has its jobs there, and everything goes over the stream: [`crate::remote`].
//!
//! The argv is itself a task of a keeper on this machine: so its whole tree is ended when the job is, when the worker is
//! lost, or when it doesn't go by itself, whatever it started; and a job's limits hold for all of it. What `local` does
//! with trees, artifacts, files and what steps hand over is done by the same code: what differs is where the keeper is.

mod error;
mod options;
mod process;
mod sandbox;
mod workspace;

pub use error::CommandError;
pub use options::{CommandOptions, Given};
pub use workspace::{CommandHost, CommandWorkspace};
