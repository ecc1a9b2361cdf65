//! Bytes that arrive piece by piece, and what is asked about them.

use std::pin::Pin;

use bytes::Bytes;
use executr_spec::Digest;
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::ApiError;

/// About so many blobs may be asked in one call.
pub const MAX_ASKED_BLOBS: usize = 10_000;

/// The bytes of a blob, in order; ends after the first error.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, ApiError>> + Send>>;

/// Digests of blobs: those that are asked about, or those of them that are missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BlobList {
    /// The digests.
    #[schema(max_items = 10_000)]
    pub digests: Vec<Digest>,
}
