//! The functions that work on values.

use std::borrow::Cow;

use executr_spec::expression::Function;
use serde_json::Value;

use crate::error::{EvaluationError, MAX_RESULT_BYTES};
use crate::evaluate::{kind, shown};
use crate::interpolate::text_of;

/// What a function comes to. Its arity was checked when it was read.
pub(crate) fn call(function: Function, arguments: &[Cow<'_, Value>]) -> Result<Value, EvaluationError> {
    let argument = |place: usize| arguments.get(place).map_or(&Value::Null, |value| &**value);
    let text = |place: usize| match argument(place) {
        Value::String(text) => Ok(text.as_str()),
        other => Err(wrong(function, other, "a text")),
    };
    match function {
        Function::Contains => match argument(0) {
            Value::Array(items) => Ok(items.contains(argument(1)).into()),
            Value::String(whole) => Ok(whole.contains(text(1)?).into()),
            other => Err(wrong(function, other, "a text or a list")),
        },
        Function::StartsWith => Ok(text(0)?.starts_with(text(1)?).into()),
        Function::EndsWith => Ok(text(0)?.ends_with(text(1)?).into()),
        Function::Join => {
            let Value::Array(items) = argument(0) else { return Err(wrong(function, argument(0), "a list")) };
            let between = if arguments.len() > 1 { text(1)? } else { "," };
            let mut joined = String::new();
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    joined.push_str(between);
                }
                joined.push_str(&text_of(item)?);
                bounded(&joined)?;
            }
            Ok(joined.into())
        }
        Function::Format => format(text(0)?, arguments.get(1..).unwrap_or_default()),
        Function::ToJson => Ok(argument(0).to_string().into()),
        Function::FromJson => serde_json::from_str(text(0)?).map_err(|error| EvaluationError::Json(error.to_string())),
        // They ask the context, not their arguments.
        Function::Success | Function::Failure | Function::Always | Function::Cancelled => Ok(Value::Null),
    }
}

fn wrong(function: Function, found: &Value, wanted: &'static str) -> EvaluationError {
    EvaluationError::Kind {
        what: format!("{}(): {}", function.as_str(), shown(found)),
        found: kind(found),
        wanted,
        remedy: "",
    }
}

fn bounded(text: &str) -> Result<(), EvaluationError> {
    if text.len() > MAX_RESULT_BYTES { Err(EvaluationError::TooLarge) } else { Ok(()) }
}

/// `{0}` stands for the first value; `{{` and `}}` for one brace.
fn format(pattern: &str, values: &[Cow<'_, Value>]) -> Result<Value, EvaluationError> {
    let wrong = |text: String| Err(EvaluationError::Format(text));
    let mut written = String::new();
    let mut rest = pattern;
    while let Some(at) = rest.find(['{', '}']) {
        written.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix(brace) {
            written.push_str(brace);
            rest = after;
            continue;
        }
        let Some((number, after)) = (brace == "{").then(|| after.split_once('}')).flatten() else {
            return wrong(format!("a single `{brace}` in `{pattern}`; write `{brace}{brace}` for the character"));
        };
        let Some(value) = number.parse::<usize>().ok().and_then(|place| values.get(place)) else {
            return wrong(format!("there is no value for `{{{number}}}`; they are counted from 0"));
        };
        written.push_str(&text_of(value)?);
        bounded(&written)?;
        rest = after;
    }
    written.push_str(rest);
    Ok(written.into())
}
