//! Amounts of memory and processor time.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::written::text_or_number;

/// Why a text is not an amount.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum QuantityError {
    /// Not an amount of memory.
    #[error("`{0}` is not an amount of memory; write bytes or 512Ki, 64Mi, 2Gi, 500M, 1G")]
    Bytes(String),
    /// Not an amount of processor time.
    #[error("`{0}` is not an amount of processor; write cores as 2 or 0.5, or thousandths as 500m")]
    Cpu(String),
}

/// An amount of memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || QuantityError::Bytes(text.to_owned());
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let unit: u64 = match unit {
            "" | "B" => 1,
            "Ki" | "KiB" => 1 << 10,
            "Mi" | "MiB" => 1 << 20,
            "Gi" | "GiB" => 1 << 30,
            "Ti" | "TiB" => 1 << 40,
            "k" | "K" | "KB" | "kB" => 1_000,
            "M" | "MB" => 1_000_000,
            "G" | "GB" => 1_000_000_000,
            "T" | "TB" => 1_000_000_000_000,
            _ => return Err(wrong()),
        };
        number.checked_mul(unit).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, size) in [("Gi", 1_u64 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)] {
            if self.0 >= size && self.0.is_multiple_of(size) {
                return write!(f, "{}{unit}", self.0 / size);
            }
        }
        self.0.fmt(f)
    }
}

/// An amount of processor time per time, in thousandths of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millicores(pub u32);

impl FromStr for Millicores {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || QuantityError::Cpu(text.to_owned());
        if let Some(thousandths) = text.strip_suffix('m') {
            return thousandths.parse().map(Self).map_err(|_| wrong());
        }
        let cores: f64 = text.parse().map_err(|_| wrong())?;
        if !(0.0..=1_000_000.0).contains(&cores) {
            return Err(wrong());
        }
        // In range by the line above, so the cast keeps every whole thousandth.
        Ok(Self((cores * 1_000.0).round() as u32))
    }
}

impl fmt::Display for Millicores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}m", self.0)
    }
}

impl PartialSchema for Bytes {
    fn schema() -> RefOr<Schema> {
        text_or_number("An amount of memory in bytes.", "^[0-9]{1,12}([KMGT]i?B?|kB?|B)?$", Type::Integer, "64Mi")
    }
}

impl ToSchema for Bytes {}

impl PartialSchema for Millicores {
    fn schema() -> RefOr<Schema> {
        text_or_number(
            "An amount of processor time per time.",
            r"^([0-9]{1,6}(\.[0-9]+)?|[0-9]{1,9}m)$",
            Type::Number,
            "500m",
        )
    }
}

impl ToSchema for Millicores {}

macro_rules! as_text_or_number {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[derive(Deserialize)]
                #[serde(untagged)]
                enum Written {
                    Number(serde_json::Number),
                    Text(String),
                }
                let text = match Written::deserialize(deserializer)? {
                    Written::Number(number) => number.to_string(),
                    Written::Text(text) => text,
                };
                text.parse().map_err(D::Error::custom)
            }
        }
    };
}

as_text_or_number!(Bytes);
as_text_or_number!(Millicores);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_reads_with_and_without_units() {
        for (text, bytes) in [("0", 0), ("64Mi", 64 << 20), ("1G", 1_000_000_000), ("17", 17)] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)));
        }
        for text in ["", "-1", "1.5Gi", "Mi", "1Xi", "99999999999Ti"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
        assert_eq!(Bytes(64 << 20).to_string(), "64Mi");
    }

    #[test]
    fn processor_reads_as_cores_or_thousandths() {
        for (text, millis) in [("2", 2_000), ("0.5", 500), ("250m", 250)] {
            assert_eq!(text.parse(), Ok(Millicores(millis)));
        }
        for text in ["", "-1", "NaN", "two", "m"] {
            assert!(text.parse::<Millicores>().is_err(), "{text}");
        }
    }
}
