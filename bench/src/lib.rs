//! Peers and physical bounds, side by side in one run.
//!
//! - [`bounds`]: what this machine can do at best, without any of our code in between;
//! - [`measures`]: what is measured, one idea a file;
//! - [`peers`]: other people's programs, whose paths are given;
//! - [`keepers`], [`in_process`], [`program`], [`http`], [`stores`], [`statements`], [`trees`], [`containers`]: what is measured, at different depths;
//! - [`report`]: medians, ratios and the table.
//!
//! Measures return rows; only the program prints.

pub mod bounds;
pub mod containers;
pub mod http;
pub mod in_process;
pub mod keepers;
pub mod measures;
pub mod peers;
pub mod program;
pub mod report;
pub mod statements;
pub mod stores;
pub mod trees;
