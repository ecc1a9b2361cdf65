//! Which of two waiting jobs goes first.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A job's priority; the declared order is the order of service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Somebody waits for it.
    Foreground,
    /// The usual.
    #[default]
    Background,
    /// When nothing else is to do.
    BestEffort,
}

impl Priority {
    /// All priorities in the order of service.
    pub const ALL: [Self; 3] = [Self::Foreground, Self::Background, Self::BestEffort];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Foreground => "foreground",
            Self::Background => "background",
            Self::BestEffort => "best_effort",
        }
    }

    /// The rank by which stores sort: 0 is served first.
    #[must_use]
    pub fn rank(self) -> i16 {
        self as i16
    }

    /// The priority with this [`rank`](Self::rank).
    #[must_use]
    pub fn from_rank(rank: i16) -> Option<Self> {
        Self::ALL.get(usize::try_from(rank).ok()?).copied()
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Priority {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|priority| priority.as_str() == text)
            .ok_or_else(|| format!("`{text}` is not a priority; use foreground, background or best_effort"))
    }
}
