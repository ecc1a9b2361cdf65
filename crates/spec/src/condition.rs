//! Whether a job or a step runs.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// When a job or a step runs. Written as one text: a built-in (`success()`), an expression (`${{ … }}`) or a script.
///
/// On a job, "before" means its needs and theirs; on a step, the earlier steps of its job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nothing before failed or was cancelled. What was skipped counts as fine.
    #[default]
    Success,
    /// Something before failed.
    Failure,
    /// Whatever happened.
    Always,
    /// The run (on a step: the job) was asked to stop.
    Cancelled,
    /// An expression, without its `${{` and `}}`. Unless it calls one of the four itself, `success()` has to hold besides.
    Expression(String),
    /// A script: exit code 0 runs, 1 skips, any other fails. Looked at only when `success()` holds.
    Shell(String),
}

impl Condition {
    /// Reads a condition as it is written.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let trimmed = text.trim();
        match trimmed {
            "success()" => Self::Success,
            "failure()" => Self::Failure,
            "always()" => Self::Always,
            "cancelled()" => Self::Cancelled,
            _ => match trimmed.strip_prefix("${{").and_then(|rest| rest.strip_suffix("}}")) {
                Some(inner) if !inner.contains("${{") => Self::parse_inner(inner.trim()),
                _ => Self::Shell(text.to_owned()),
            },
        }
    }

    fn parse_inner(inner: &str) -> Self {
        match inner {
            "success()" => Self::Success,
            "failure()" => Self::Failure,
            "always()" => Self::Always,
            "cancelled()" => Self::Cancelled,
            other => Self::Expression(other.to_owned()),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => f.write_str("success()"),
            Self::Failure => f.write_str("failure()"),
            Self::Always => f.write_str("always()"),
            Self::Cancelled => f.write_str("cancelled()"),
            Self::Expression(text) => write!(f, "${{{{ {text} }}}}"),
            Self::Shell(script) => f.write_str(script),
        }
    }
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::parse(&String::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_reads_back_from_what_it_is_written_as() {
        for (text, condition) in [
            ("success()", Condition::Success),
            (" always() ", Condition::Always),
            ("${{ failure() }}", Condition::Failure),
            ("${{ matrix.os == 'linux' }}", Condition::Expression("matrix.os == 'linux'".to_owned())),
            ("test -f Makefile", Condition::Shell("test -f Makefile".to_owned())),
        ] {
            assert_eq!(Condition::parse(text), condition, "{text}");
            assert_eq!(Condition::parse(&condition.to_string()), condition, "{text}");
        }
    }
}
