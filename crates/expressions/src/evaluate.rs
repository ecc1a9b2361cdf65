//! From an expression to its value, from left to right.

use std::borrow::Cow;
use std::cmp::Ordering;

use executr_spec::expression::{Expression, Function, Operator, Term};
use serde_json::{Number, Value};

use crate::context::{Context, Root};
use crate::error::{EvaluationError, MAX_RESULT_BYTES};
use crate::functions;

/// What an expression comes to, as far as it is known.
#[derive(Clone, Debug, PartialEq)]
pub enum Evaluated<'a> {
    /// This, now and later.
    Known(Cow<'a, Value>),
    /// It depends on the context of this name.
    NotYet(String),
}

/// What an expression comes to.
///
/// # Errors
/// When it comes to nothing, or something isn't known yet.
pub fn evaluate<'a>(expression: &'a Expression, context: &'a Context) -> Result<Cow<'a, Value>, EvaluationError> {
    match evaluate_early(expression, context)? {
        Evaluated::Known(value) => Ok(value),
        Evaluated::NotYet(name) => Err(EvaluationError::NotYet(name)),
    }
}

/// What an expression comes to, if that can be said already. It will come to the same, also to the same error, when more is
/// known.
///
/// # Errors
/// When it comes to nothing.
pub fn evaluate_early<'a>(expression: &'a Expression, context: &'a Context) -> Result<Evaluated<'a>, EvaluationError> {
    term(expression.term(), context)
}

/// Whether a value means yes: true, or the text `true`.
///
/// # Errors
/// When it is none of true, false, and those as texts.
pub fn truth(value: &Value) -> Result<bool, EvaluationError> {
    match value {
        Value::Bool(value) => Ok(*value),
        Value::String(text) if text == "true" => Ok(true),
        Value::String(text) if text == "false" => Ok(false),
        other => Err(EvaluationError::Kind {
            what: shown(other),
            found: kind(other),
            wanted: "true or false",
            remedy: "; compare it with something",
        }),
    }
}

macro_rules! known {
    ($evaluated:expr) => {
        match $evaluated {
            Evaluated::Known(value) => value,
            Evaluated::NotYet(name) => return Ok(Evaluated::NotYet(name)),
        }
    };
}

fn term<'a>(of: &'a Term, context: &'a Context) -> Result<Evaluated<'a>, EvaluationError> {
    match of {
        Term::Literal(value) => Ok(Evaluated::Known(Cow::Borrowed(value))),
        Term::Context(name) => match context.root(name) {
            Some(Root::Whole(value)) => Ok(Evaluated::Known(Cow::Borrowed(value))),
            Some(Root::Part(_) | Root::Later) => Ok(Evaluated::NotYet(name.clone())),
            None => Err(EvaluationError::NoContext(name.clone())),
        },
        Term::Member(of, by) => member(of, by, context),
        Term::Not(of) => {
            let value = known!(term(of, context)?);
            Ok(owned(Value::Bool(!truth(&value)?)))
        }
        Term::Binary(operator, left, right) => binary(*operator, left, right, context),
        Term::Call(function, arguments) => call(*function, arguments, context),
    }
}

fn owned<'a>(value: Value) -> Evaluated<'a> {
    Evaluated::Known(Cow::Owned(value))
}

fn member<'a>(of: &'a Term, by: &'a Term, context: &'a Context) -> Result<Evaluated<'a>, EvaluationError> {
    if let Term::Context(name) = of
        && let Some(Root::Part(value)) = context.root(name)
    {
        let key = known!(term(by, context)?);
        return match key.as_str().and_then(|key| value.get(key)) {
            Some(found) => Ok(Evaluated::Known(Cow::Borrowed(found))),
            None => Ok(Evaluated::NotYet(name.clone())),
        };
    }
    let value = known!(term(of, context)?);
    let key = known!(term(by, context)?);
    let name = || named(of);
    match (&*value, &*key) {
        (Value::Object(map), Value::String(key)) => match map.get(key) {
            None => Err(missing(key.clone(), name(), &value)),
            Some(_) => Ok(Evaluated::Known(picked(value, |value| value.get(key), |value| value.get_mut(key)))),
        },
        (Value::Array(items), Value::Number(number)) => {
            let index =
                number.as_u64().and_then(|index| usize::try_from(index).ok()).filter(|index| *index < items.len());
            match index {
                None => Err(missing(number.to_string(), name(), &value)),
                Some(index) => {
                    Ok(Evaluated::Known(picked(value, |value| value.get(index), |value| value.get_mut(index))))
                }
            }
        }
        (Value::Array(_), other) => Err(EvaluationError::Kind {
            what: format!("the key {} of the list `{}`", shown(other), name()),
            found: kind(other),
            wanted: "a number",
            remedy: "",
        }),
        (Value::Object(_), other) => Err(EvaluationError::Kind {
            what: format!("the key {} of `{}`", shown(other), name()),
            found: kind(other),
            wanted: "a text",
            remedy: "",
        }),
        (other, key) => Err(EvaluationError::Kind {
            what: format!("`{}`, which is asked for {},", name(), shown(key)),
            found: kind(other),
            wanted: "something with keys",
            remedy: "; fromJSON() reads a text",
        }),
    }
}

/// A part of a value, borrowed when the value is.
fn picked<'a>(
    value: Cow<'a, Value>,
    get: impl Fn(&Value) -> Option<&Value>,
    get_mut: impl Fn(&mut Value) -> Option<&mut Value>,
) -> Cow<'a, Value> {
    match value {
        Cow::Borrowed(value) => get(value).map_or(Cow::Owned(Value::Null), Cow::Borrowed),
        Cow::Owned(mut value) => Cow::Owned(get_mut(&mut value).map(Value::take).unwrap_or_default()),
    }
}

fn missing(key: String, of: String, value: &Value) -> EvaluationError {
    let have = match value {
        Value::Object(map) if map.is_empty() => "; it has nothing".to_owned(),
        Value::Object(map) => {
            let some: Vec<_> = map.keys().take(8).map(String::as_str).collect();
            let more = if map.len() > 8 { " …" } else { "" };
            format!("; it has {}{more}", some.join(", "))
        }
        Value::Array(items) => format!("; it has {}, counted from 0", items.len()),
        _ => String::new(),
    };
    EvaluationError::Missing { key, of, have }
}

fn binary<'a>(
    operator: Operator,
    left: &'a Term,
    right: &'a Term,
    context: &'a Context,
) -> Result<Evaluated<'a>, EvaluationError> {
    let left = known!(term(left, context)?);
    match operator {
        Operator::And if !truth(&left)? => return Ok(owned(Value::Bool(false))),
        Operator::Or if truth(&left)? => return Ok(owned(Value::Bool(true))),
        _ => {}
    }
    let right = known!(term(right, context)?);
    let answer = match operator {
        Operator::And | Operator::Or => truth(&right)?,
        _ => compare(operator, &left, &right)?,
    };
    Ok(owned(Value::Bool(answer)))
}

fn compare(operator: Operator, left: &Value, right: &Value) -> Result<bool, EvaluationError> {
    let wrong = |remedy| {
        let (left, right) = (kind(left), kind(right));
        Err(EvaluationError::Comparison { operator: operator.as_str(), left, right, remedy })
    };
    if matches!(operator, Operator::Equal | Operator::NotEqual) {
        let same = match (left, right) {
            (Value::Number(left), Value::Number(right)) => order(left, right) == Some(Ordering::Equal),
            (Value::Null, _) | (_, Value::Null) => left == right,
            _ if kind(left) == kind(right) => left == right,
            (Value::String(_), Value::Number(_) | Value::Bool(_))
            | (Value::Number(_) | Value::Bool(_), Value::String(_)) => {
                return wrong("put the other in quotes, or read the text by fromJSON()");
            }
            _ => return wrong("they are never the same"),
        };
        return Ok(same == (operator == Operator::Equal));
    }
    let order = match (left, right) {
        (Value::Number(left), Value::Number(right)) => order(left, right),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (Value::String(_), Value::Number(_)) | (Value::Number(_), Value::String(_)) => {
            return wrong("read the text by fromJSON()");
        }
        _ => return wrong("only numbers, and texts, have an order"),
    };
    let order = order.unwrap_or(Ordering::Equal);
    Ok(match operator {
        Operator::Less => order.is_lt(),
        Operator::AtMost => order.is_le(),
        Operator::Greater => order.is_gt(),
        _ => order.is_ge(),
    })
}

/// Whole numbers are compared exactly.
fn order(left: &Number, right: &Number) -> Option<Ordering> {
    let whole = |number: &Number| number.as_i128();
    match (whole(left), whole(right)) {
        (Some(left), Some(right)) => Some(left.cmp(&right)),
        _ => left.as_f64()?.partial_cmp(&right.as_f64()?),
    }
}

fn call<'a>(function: Function, arguments: &'a [Term], context: &'a Context) -> Result<Evaluated<'a>, EvaluationError> {
    let status = |of: fn(crate::Status) -> bool| match context.status() {
        Some(status) => owned(Value::Bool(of(status))),
        None => Evaluated::NotYet(format!("{}()", function.as_str())),
    };
    match function {
        Function::Success => return Ok(status(|status| status.success)),
        Function::Failure => return Ok(status(|status| status.failure)),
        Function::Cancelled => return Ok(status(|status| status.cancelled)),
        Function::Always => return Ok(owned(Value::Bool(true))),
        _ => {}
    }
    let mut values = Vec::with_capacity(arguments.len());
    for argument in arguments {
        values.push(known!(term(argument, context)?));
    }
    let value = functions::call(function, &values)?;
    if matches!(&value, Value::String(text) if text.len() > MAX_RESULT_BYTES) {
        return Err(EvaluationError::TooLarge);
    }
    Ok(owned(value))
}

/// The kind of a value, with its article.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A value as an error shows it. What may be a secret, or hold one, isn't shown: an error is on record, and cut values
/// can't be masked.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => format!("`{value}`"),
        Value::String(_) | Value::Array(_) | Value::Object(_) => "the value".to_owned(),
    }
}

/// A term as its user wrote it, as far as it is a name.
fn named(of: &Term) -> String {
    match of {
        Term::Context(name) => name.clone(),
        Term::Member(of, by) => match &**by {
            Term::Literal(Value::String(key)) => format!("{}.{key}", named(of)),
            Term::Literal(key) => format!("{}[{key}]", named(of)),
            _ => format!("{}[…]", named(of)),
        },
        Term::Call(function, _) => format!("{}(…)", function.as_str()),
        _ => "(…)".to_owned(),
    }
}
