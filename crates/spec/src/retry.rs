//! How often a step is tried.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::backoff::{Backoff, BackoffKind};
use crate::time::Span;

/// How often a step is tried within one attempt, and how long is waited between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// All tries, the first one too; at least 1.
    pub max_attempts: u32,
    /// How the wait grows.
    pub backoff: BackoffKind,
    /// The shortest wait.
    pub min_time: Span,
    /// The longest wait.
    pub max_time: Span,
}

impl Default for Retry {
    fn default() -> Self {
        let Backoff { kind, min_time, max_time } = Backoff::default();
        Self { max_attempts: 1, backoff: kind, min_time, max_time }
    }
}

impl Retry {
    /// The waits between tries.
    #[must_use]
    pub fn waits(&self) -> Backoff {
        Backoff { kind: self.backoff, min_time: self.min_time, max_time: self.max_time }
    }
}
