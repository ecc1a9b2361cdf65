//! Other people's programs, measured in the same run. Nothing of theirs is kept here: their paths are given.

pub mod graphile;
pub mod hyperqueue;
