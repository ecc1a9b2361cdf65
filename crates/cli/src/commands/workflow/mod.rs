//! Workflows and their runs: here in this process, or on a server.
//!
//! - [`load`]: from a file and flags to a plan, or to words about what is wrong with it;
//! - [`source`]: the repository, as a tree where the run will be;
//! - [`transfer`]: what is said when that, or an artifact, doesn't arrive;
//! - [`here`]: `executr run FILE`, with `--resume`;
//! - [`single`]: `executr run` of one command in a place of its own;
//! - [`there`]: `executr submit FILE`;
//! - [`modified`]: what its jobs changed, unpacked here;
//! - [`watch`]: a run as it goes on;
//! - [`picture`]: how that is shown, and how it ended;
//! - [`runs`], [`rerun`], [`artifacts`]: what is known of runs afterwards.

pub(super) mod artifacts;
pub(super) mod here;
pub(super) mod load;
mod modified;
mod picture;
pub(super) mod rerun;
pub(super) mod runs;
pub(super) mod single;
mod source;
pub(super) mod there;
mod transfer;
mod watch;
