//! How long to wait before the next attempt.

use std::fmt;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, ToSchema};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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

/// Either way of writing it, for the documentation.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(as = Backoff)]
#[expect(dead_code, reason = "it stands for what `Backoff` reads by itself")]
enum Written {
    Kind(BackoffKind),
    Full(#[schema(inline)] Full),
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Full {
    #[serde(default)]
    kind: BackoffKind,
    min_time: Option<Span>,
    max_time: Option<Span>,
}

impl<'de> Deserialize<'de> for Backoff {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KindOrObject;

        impl<'de> Visitor<'de> for KindOrObject {
            type Value = Backoff;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`exponential`, `linear`, `constant`, or an object with `kind`, `min_time` and `max_time`")
            }

            fn visit_str<E: Error>(self, kind: &str) -> Result<Backoff, E> {
                let kind = BackoffKind::deserialize(kind.into_deserializer())?;
                Ok(Backoff { kind, ..Backoff::default() })
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Backoff, A::Error> {
                let full = Full::deserialize(MapAccessDeserializer::new(fields))?;
                let default = Backoff::default();
                Ok(Backoff {
                    kind: full.kind,
                    min_time: full.min_time.unwrap_or(default.min_time),
                    max_time: full.max_time.unwrap_or(default.max_time),
                })
            }
        }

        deserializer.deserialize_any(KindOrObject)
    }
}

impl PartialSchema for Backoff {
    fn schema() -> RefOr<Schema> {
        Written::schema()
    }
}

impl ToSchema for Backoff {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Written::schemas(schemas);
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
        for wrong in ["\"quadratic\"", "7", "[]", r#"{"kind":"linear","most":1}"#] {
            assert!(serde_json::from_str::<Backoff>(wrong).is_err(), "{wrong}");
        }
    }
}
