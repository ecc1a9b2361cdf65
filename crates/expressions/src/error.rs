//! Why an expression comes to nothing.

use executr_spec::expression::ExpressionError;
use thiserror::Error;

/// Why an expression comes to nothing. The text says what to write instead.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum EvaluationError {
    /// It isn't one.
    #[error(transparent)]
    Syntax(#[from] ExpressionError),
    /// There is no such context.
    #[error("`{0}` isn't known here")]
    NoContext(String),
    /// It can't be known yet.
    #[error("`{0}` isn't known yet")]
    NotYet(String),
    /// Something has no such key.
    #[error("there is no `{key}` in `{of}`{have}")]
    Missing {
        /// What was asked for.
        key: String,
        /// Where.
        of: String,
        /// What there is, as half a sentence.
        have: String,
    },
    /// Something was used as what it isn't.
    #[error("{what} is {found}, not {wanted}{remedy}")]
    Kind {
        /// What was used.
        what: String,
        /// What it is.
        found: &'static str,
        /// What it should be.
        wanted: &'static str,
        /// What to do, as half a sentence.
        remedy: &'static str,
    },
    /// Two things can't be compared.
    #[error("`{operator}` compares {left} with {right}; {remedy}")]
    Comparison {
        /// The operator.
        operator: &'static str,
        /// What is on its left.
        left: &'static str,
        /// What is on its right.
        right: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// A text that isn't JSON.
    #[error("fromJSON(): this is no JSON: {0}")]
    Json(String),
    /// A text for `format()` that is wrong.
    #[error("format(): {0}")]
    Format(String),
    /// It becomes too large.
    #[error("becomes larger than {} bytes", MAX_RESULT_BYTES)]
    TooLarge,
}

/// The most bytes an expression, or a text with expressions in it, may come to.
pub(crate) const MAX_RESULT_BYTES: usize = 4 << 20;
