//! Speaking to registries.
//!
//! - `sources`: where an image may be had, its mirrors in order and then the registry itself; manifests and blobs from the
//!   first that gives them. The protocol and its tokens are `oci-client`'s;
//! - `manifest`: what manifests, indexes and configurations say;
//! - `failure`: what went wrong, in words that name the registry, what was asked, and the remedy.
//!
//! Nothing here writes to a disk.

mod failure;
mod manifest;
mod sources;

pub use failure::RegistryError;
pub(crate) use manifest::{Configuration, Descriptor, Manifest, Parsed, media_type, parse};
pub(crate) use sources::Sources;
