//! The bytes of a layer, made a directory that an overlay mount takes.
//!
//! - `refusal`: what no layer may do, and how it is told;
//! - `name`: which names entries may have;
//! - `measured`: how much may be read;
//! - `reader`: the bytes as they come, decompressed and hashed on the way;
//! - `place`: entries put into a directory, relative to open directories and never through a link;
//! - `unpack`: one after the other.
//!
//! A layer is whole only when all of it was read and its digests are right: until then whoever calls keeps it where nobody
//! looks. Nothing here knows of registries.

mod measured;
mod name;
mod place;
mod reader;
mod refusal;
#[cfg(test)]
mod tests;
mod unpack;

pub use place::Ownership;
pub(crate) use reader::Chunks;
pub use refusal::{LayerError, Refusal};
pub(crate) use unpack::unpack;

/// What a layer may have at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes, unpacked; of sparse files their length.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
}

impl Default for Limits {
    /// 64 GiB and 4 million entries.
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 4_000_000 }
    }
}
