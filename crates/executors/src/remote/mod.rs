//! Job directories that are not on this machine, as far as anybody knows: everything goes through an agent there.
//!
//! - [`workspace`]: an agent, and the directory it makes job directories in;
//! - `sandbox`: one attempt's directory there;
//! - `execution`: a step that runs there;
//! - `sending`: files of this machine on their way there.
//!
//! ```text
//! ROOT/JOB/work        where steps start
//! ROOT/JOB/run-N       the script of step N
//! ROOT/JOB/env|output  what steps hand over
//! ROOT/JOB/programs    programs of this machine that were brought there
//! ```
//!
//! Nothing of this machine is seen there but what is sent: a job has none of the worker's variables, and no path here means
//! anything to it.

mod execution;
mod sandbox;
mod sending;
mod workspace;

pub use workspace::RemoteWorkspace;
