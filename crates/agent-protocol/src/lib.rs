//! What a driver and an agent say to each other, and the driver.
//!
//! - [`v1`]: the messages, generated from `proto/executr/agent/v1/agent.proto`;
//! - [`frame`]: how a message lies on a byte stream;
//! - `driver` (feature `driver`): the calling side, on tokio. The agent itself is built without it.
//!
//! Agents so far are keepers, on the same machine as their driver: the messages go length-delimited over a Unix
//! socketpair, which needs neither negotiation nor multiplexing. The same messages become a gRPC service when
//! agents sit across a boundary (a container, a host, a virtual machine).
//!
//! Nothing here starts, ends or measures a process of a job: that is the agent's.

#[cfg(feature = "driver")]
pub mod driver;
pub mod frame;

/// The messages, version 1. What they mean is said in the `.proto` file.
#[allow(missing_docs, unreachable_pub, clippy::doc_markdown)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/executr.agent.v1.rs"));
}

/// The version both sides name in their first message. They must agree exactly.
pub const PROTOCOL: u32 = 1;

/// What the empty directories are called that keepers keep beside job directories, with the keeper's process id behind
/// it. Whoever finds one may remove it while it is empty: its keeper then makes another.
pub const SPARE_PREFIX: &str = ".executr-spare-";
