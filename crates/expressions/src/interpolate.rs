//! Texts with expressions in them.

use std::borrow::Cow;

use executr_spec::expression::{Piece, Template};
use serde_json::Value;

use crate::context::Context;
use crate::error::{EvaluationError, MAX_RESULT_BYTES};
use crate::evaluate::{evaluate, kind, shown};

/// A text with the values of its expressions in their places. One without any is given back as it is.
///
/// # Errors
/// When one of its expressions comes to nothing, or to something that is no text.
pub fn interpolate<'a>(text: &'a str, context: &Context) -> Result<Cow<'a, str>, EvaluationError> {
    if !Template::is_in(text) {
        return Ok(Cow::Borrowed(text));
    }
    let template = Template::parse(text)?;
    let mut written = String::new();
    for piece in template.pieces() {
        match piece {
            Piece::Text(text) => written.push_str(text),
            Piece::Expression(expression) => written.push_str(&text_of(&*evaluate(expression, context)?)?),
        }
        if written.len() > MAX_RESULT_BYTES {
            return Err(EvaluationError::TooLarge);
        }
    }
    Ok(Cow::Owned(written))
}

/// A value in a text.
pub(crate) fn text_of(value: &Value) -> Result<Cow<'_, str>, EvaluationError> {
    match value {
        Value::String(text) => Ok(Cow::Borrowed(text)),
        Value::Number(_) | Value::Bool(_) => Ok(Cow::Owned(value.to_string())),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(EvaluationError::Kind {
            what: shown(value),
            found: kind(value),
            wanted: "a text",
            remedy: "; toJSON() makes one of it",
        }),
    }
}
