//! Bytes that arrive piece by piece.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;

use crate::error::ApiError;

/// The bytes of a blob, in order; ends after the first error.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, ApiError>> + Send>>;
