//! How long to wait before the next attempt.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::time::Span;

/// How the waiting time grows from attempt to attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BackoffKind {
    /// Twice as long each time: `min(max_time, min_time · 2^(n−1))`.
    #[default]
    Exponential,
    /// Longer by `min_time` each time: `min(max_time, min_time · n)`.
    Linear,
    /// Always `min_time`.
    Constant,
}

/// When a failed attempt is repeated. Written as the kind alone (`"linear"`) or as an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(from = "Written")]
pub struct Backoff {
    /// How the waiting time grows.
    pub kind: BackoffKind,
    /// The shortest wait; 1 s by default.
    pub min_time: Span,
    /// The longest wait; 60 s by default.
    pub max_time: Span,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            kind: BackoffKind::Exponential,
            min_time: Span(Duration::from_secs(1)),
            max_time: Span(Duration::from_secs(60)),
        }
    }
}

impl Backoff {
    /// The wait after the `failures`-th failure (counted from 1).
    #[must_use]
    pub fn delay(&self, failures: u32) -> Duration {
        let factor = match self.kind {
            BackoffKind::Exponential => 2_u32.saturating_pow(failures.saturating_sub(1)),
            BackoffKind::Linear => failures,
            BackoffKind::Constant => return self.min_time.0,
        };
        self.min_time.0.saturating_mul(factor).min(self.max_time.0)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Kind(BackoffKind),
    Full(Full),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Full {
    #[serde(default)]
    kind: BackoffKind,
    min_time: Option<Span>,
    max_time: Option<Span>,
}

impl From<Written> for Backoff {
    fn from(written: Written) -> Self {
        let default = Self::default();
        match written {
            Written::Kind(kind) => Self { kind, ..default },
            Written::Full(full) => Self {
                kind: full.kind,
                min_time: full.min_time.unwrap_or(default.min_time),
                max_time: full.max_time.unwrap_or(default.max_time),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(kind: BackoffKind) -> Vec<u64> {
        let backoff = Backoff { kind, ..Backoff::default() };
        [1, 2, 3, 7, 40].map(|failures| backoff.delay(failures).as_secs()).to_vec()
    }

    #[test]
    fn each_kind_follows_its_formula_up_to_max_time() {
        assert_eq!(seconds(BackoffKind::Exponential), [1, 2, 4, 60, 60]);
        assert_eq!(seconds(BackoffKind::Linear), [1, 2, 3, 7, 40]);
        assert_eq!(seconds(BackoffKind::Constant), [1, 1, 1, 1, 1]);
    }

    #[test]
    fn a_kind_alone_is_enough() {
        let short: Backoff = serde_json::from_str("\"linear\"").expect("a kind");
        let full: Backoff = serde_json::from_str(r#"{"kind":"linear"}"#).expect("an object");
        assert_eq!(short, full);
        assert!(serde_json::from_str::<Backoff>("\"quadratic\"").is_err());
    }
}
