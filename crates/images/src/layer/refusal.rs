//! What no layer may do.

use std::io;

use thiserror::Error;

/// A layer that is broken or would do what none may. Nothing of it is kept.
#[derive(Debug, Error)]
#[error("layer {layer}{}: {why}", .entry.as_ref().map(|entry| format!(", entry `{entry}`")).unwrap_or_default())]
pub struct LayerError {
    /// The layer's digest.
    pub layer: String,
    /// At which entry, if it was at one.
    pub entry: Option<String>,
    /// Why.
    #[source]
    pub why: Refusal,
}

/// Why a layer is refused.
#[derive(Debug, Error)]
pub enum Refusal {
    /// Its name leads out of the image.
    #[error("its name leads out of the image; nothing of the layer is kept")]
    Outside,
    /// Its name is none that a file can have.
    #[error("its name is {0}")]
    Name(&'static str),
    /// It lies behind a link.
    #[error("it lies behind a symbolic link, or something that is no directory, of the same layer")]
    Behind,
    /// It would replace a directory that isn't empty.
    #[error("it stands where the layer already has a directory")]
    Replaces,
    /// A hard link to what isn't there.
    #[error("it is a hard link to `{0}`, which the layer doesn't have before it")]
    Link(String),
    /// A device.
    #[error("it is a device; images have none outside /dev")]
    Device,
    /// A kind of entry that nobody knows.
    #[error("it is of the kind {0:?}, which no image has")]
    Kind(char),
    /// An attribute that rules how layers lie upon each other.
    #[error("it has the attribute {0}, which is for the kernel's overlay mounts only")]
    Attribute(String),
    /// A sparse file in a form that isn't read.
    #[error("it is a sparse file in the form of POSIX archives; pack it as a whole or in GNU's form")]
    Sparse,
    /// Too many entries.
    #[error("the layer has more than {0} entries; raise the limit if it is meant to")]
    Entries(u64),
    /// Too many bytes.
    #[error("the layer has more than {0} bytes, unpacked; raise the limit if it is meant to")]
    Bytes(u64),
    /// Its headers are too long.
    #[error("its headers are longer than {0} bytes")]
    Headers(u64),
    /// The archive can't be read.
    #[error("it can't be read: {0}")]
    Broken(io::Error),
    /// Its bytes are others.
    #[error("its bytes have the digest sha256:{found}, not {expected}")]
    Digest {
        /// What they should have.
        expected: String,
        /// What they have.
        found: String,
    },
    /// Its length is another.
    #[error("it has {found} bytes, not {expected}")]
    Length {
        /// How many it should have.
        expected: u64,
        /// How many it has.
        found: u64,
    },
    /// The system refuses.
    #[error(
        "cannot {action}: {source}; check that the directory of images is on a file system that can, with space left"
    )]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl Refusal {
    pub(crate) fn system(action: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::System { action, source: errno.into() }
    }
}
