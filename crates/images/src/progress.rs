//! What happens while an image is fetched or sent: told, never asked for.

use executr_spec::Digest;

/// Hears of progress. Called from several threads, often: it must not wait.
pub trait Progress: Send + Sync {
    /// Something went on.
    fn update(&self, update: Update<'_>);
}

/// One piece of progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update<'a> {
    /// It is known what the image is made of: its digest, and each layer's with its length in bytes as it travels.
    Resolved {
        /// The digest of its manifest.
        digest: Digest,
        /// Its layers, lowest first.
        layers: &'a [(Digest, u64)],
    },
    /// More bytes of a layer have travelled.
    Moved {
        /// Which.
        layer: Digest,
        /// How many bytes more.
        bytes: u64,
    },
    /// A layer is where it should be.
    Done {
        /// Which.
        layer: Digest,
        /// It was there before, and nothing of it travelled.
        was_there: bool,
    },
    /// A mirror or a connection failed; it goes on with the next, or once more.
    Again {
        /// What failed, and why.
        why: &'a str,
    },
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn update(&self, _: Update<'_>) {}
}
