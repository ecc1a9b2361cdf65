//! Names that users choose.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

/// Why a text can't be a name.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NameError {
    /// Nothing was given.
    #[error("{what} is empty; give it a name")]
    Empty {
        /// Which name.
        what: &'static str,
    },
    /// Too many bytes.
    #[error("{what} has {length} bytes; at most {most} are allowed")]
    TooLong {
        /// Which name.
        what: &'static str,
        /// Its length in bytes.
        length: usize,
        /// The limit in bytes.
        most: usize,
    },
    /// A character that may not stand there.
    #[error("{what} `{text}` contains {character:?}; {allowed}")]
    Character {
        /// Which name.
        what: &'static str,
        /// The whole text.
        text: String,
        /// The first wrong character.
        character: char,
        /// What may stand there.
        allowed: &'static str,
    },
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $most:tt, $pattern:tt, $allowed:expr, $fits:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, ToSchema)]
        #[serde(transparent)]
        #[schema(value_type = String, min_length = 1, max_length = $most, pattern = $pattern)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                if text.is_empty() {
                    return Err(NameError::Empty { what: $what });
                }
                if text.len() > $most {
                    return Err(NameError::TooLong { what: $what, length: text.len(), most: $most });
                }
                let fits: fn(char) -> bool = $fits;
                if let Some(character) = text.chars().find(|c| !fits(*c)) {
                    return Err(NameError::Character {
                        what: $what, text: text.to_owned(), character, allowed: $allowed,
                    });
                }
                Ok(Self(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

const WORD: &str = "use letters, digits, `-`, `_`, `.`, `/` and `:`";

fn word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':')
}

name! {
    /// A job's `type`: a word by which users group and find their jobs. No spaces.
    JobType, "the job type", 200, r"^[^\s\x00-\x1f\x7f-\x9f]+$", "use no spaces or control characters", |c| !c.is_whitespace() && !c.is_control()
}
name! {
    /// A queue's name.
    QueueName, "the queue name", 100, "^[A-Za-z0-9_./:-]+$", WORD, word
}
name! {
    /// On whose behalf a job was submitted. Tenants of one queue take turns.
    Tenant, "the tenant", 100, "^[A-Za-z0-9_./:-]+$", WORD, word
}

impl Default for QueueName {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl Default for Tenant {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl Default for JobType {
    fn default() -> Self {
        Self("command".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_name_is_told_what_is_wrong() {
        assert_eq!("".parse::<QueueName>(), Err(NameError::Empty { what: "the queue name" }));
        let error = "two words".parse::<JobType>().expect_err("a space");
        assert!(error.to_string().contains("contains ' '; use no spaces"), "{error}");
        assert!("x".repeat(101).parse::<Tenant>().is_err());
        assert!("gpu/a100:8".parse::<QueueName>().is_ok());
    }
}
