//! The real components tests run against, so that nothing has to be imitated: PostgreSQL, container engines, a registry, and the program itself.
//!
//! Other crates take this one as a dev-dependency; it depends on none of theirs, so it never slows their inner
//! loop. The end-to-end tests themselves live in `tests/` beside this folder. What belongs to one crate's own
//! tests stays in that crate.

pub mod background;
pub mod component;
pub mod docker;
pub mod loopback;
pub mod markdown;
pub mod postgres;
pub mod program;
pub mod registry;
pub mod rootfs;
pub mod run;
pub mod shell;
pub mod sshd;
pub mod terminal;
pub mod usage;
