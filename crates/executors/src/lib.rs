//! Where jobs run: one folder per executor behind one contract.
//!
//! - [`contract`]: the hooks an executor offers, and what passes through them;
//! - [`local`]: a directory on this machine;
//! - [`hooks`]: wherever somebody's scripts say;
//! - [`oci`]: a container of Docker or Podman;
//! - [`command`]: behind an argv that starts an agent;
//! - `here`: job directories on this machine, whatever runs their steps;
//! - [`remote`]: directories that only an agent sees;
//! - [`ssh`]: other hosts;
//! - [`sweep`]: what dead processes left of any of them;
//! - [`doctor`]: what each of them has and lacks on a machine.
//!
//! Spawning, streaming, exit codes and ending a process tree are the agent's, on the other side of a byte stream;
//! executors only say where an agent is and how to reach it. What to run, for how long and what becomes of its output
//! is the engine's.

pub mod command;
pub mod contract;
pub mod doctor;
mod here;
pub mod hooks;
pub mod local;
pub mod oci;
pub mod remote;
pub mod ssh;
pub mod sweep;
