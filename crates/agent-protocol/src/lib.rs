//! What is said to an agent and to a keeper, and the calling side of both.
//!
//! - [`agent`]: the public protocol, gRPC, generated from `proto/executr/agent/v1/*.proto`;
//! - [`keeper`]: the private one, between two processes of the same program, length-delimited over a socketpair, which
//!   needs neither negotiation nor multiplexing;
//! - [`frame`]: how a message of the latter lies on its stream;
//! - `driver` (features `keeper`, `driver`): the calling sides, on tokio.
//!
//! Nothing here starts, ends or measures a process of a job: that is the agent's.

#[cfg(feature = "keeper")]
pub mod driver;
pub mod frame;

/// The protocol of the agent.
pub mod agent {
    /// Version 1. What its messages and calls mean is said in the `.proto` files.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/executr.agent.v1.rs"));
    }
}

/// The protocol of the keeper.
pub mod keeper {
    /// Version 1. What its messages mean is said in the `.proto` file.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/executr.keeper.v1.rs"));
    }
}

pub use agent::v1;

/// The version both sides of either protocol name in their first message. They must agree exactly.
pub const PROTOCOL: u32 = 1;

/// Bytes of standard input that may be on the way to a process that hasn't taken them.
pub const INPUT_WINDOW: u64 = 256 * 1024;

/// Bytes of a task's story that an agent keeps for a caller who hasn't acknowledged them.
pub const UNACKNOWLEDGED: usize = 1024 * 1024;

/// Largest message of the agent's protocol, in bytes.
pub const MAX_MESSAGE: usize = frame::MAX_FRAME;

/// What the empty directories are called that keepers keep beside job directories, with the keeper's process id behind
/// it. Whoever finds one may remove it while it is empty: its keeper then makes another.
pub const SPARE_PREFIX: &str = ".executr-spare-";
