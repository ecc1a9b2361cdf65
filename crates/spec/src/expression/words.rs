//! From characters to words.

use serde_json::{Number, Value};

use super::{ExpressionError, Operator};

/// A word of the language.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Word {
    /// A context, a function, a key.
    Identifier(String),
    Literal(Value),
    Operator(Operator),
    Not,
    Dot,
    Comma,
    Open,
    Close,
    OpenBracket,
    CloseBracket,
    /// `}}`: the expression ends, its template goes on.
    Braces,
    /// The text ends.
    End,
}

/// Whether a text can be written after a dot.
pub(super) fn is_identifier(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(begins) && characters.all(continues)
}

fn begins(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

fn continues(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

/// The word at `from` (after spaces), where it begins and where it ends.
pub(super) fn next(text: &str, from: usize) -> Result<(Word, usize, usize), ExpressionError> {
    let rest = &text[from..];
    let start = from + (rest.len() - rest.trim_start().len());
    let rest = &text[start..];
    let wrong = |problem: &str| ExpressionError::new(text, start, problem);
    for (written, word) in [
        ("}}", Word::Braces),
        ("||", Word::Operator(Operator::Or)),
        ("&&", Word::Operator(Operator::And)),
        ("==", Word::Operator(Operator::Equal)),
        ("!=", Word::Operator(Operator::NotEqual)),
        ("<=", Word::Operator(Operator::AtMost)),
        (">=", Word::Operator(Operator::AtLeast)),
        ("<", Word::Operator(Operator::Less)),
        (">", Word::Operator(Operator::Greater)),
        ("!", Word::Not),
        (".", Word::Dot),
        (",", Word::Comma),
        ("(", Word::Open),
        (")", Word::Close),
        ("[", Word::OpenBracket),
        ("]", Word::CloseBracket),
    ] {
        if rest.starts_with(written) {
            return Ok((word, start, start + written.len()));
        }
    }
    match rest.chars().next() {
        None => Ok((Word::End, start, start)),
        Some('\'') => {
            let (value, length) = quoted(rest).ok_or_else(|| wrong("this text has no end; close it with `'`"))?;
            Ok((Word::Literal(Value::String(value)), start, start + length))
        }
        Some('"') => Err(wrong("texts stand in single quotes: 'like this'")),
        Some('=') => Err(wrong("`=` sets nothing here; compare with `==`")),
        Some('&' | '|') => Err(wrong("write `&&` for and, `||` for or")),
        Some(c) if c.is_ascii_digit() || c == '-' => {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-');
            let length = rest.find(|c| !fits(c)).unwrap_or(rest.len());
            let number: Number = rest[..length].parse().map_err(|_| wrong("this is no number"))?;
            Ok((Word::Literal(Value::Number(number)), start, start + length))
        }
        Some(c) if begins(c) => {
            let length = rest.find(|c| !continues(c)).unwrap_or(rest.len());
            let word = match &rest[..length] {
                "true" => Word::Literal(Value::Bool(true)),
                "false" => Word::Literal(Value::Bool(false)),
                "null" => Word::Literal(Value::Null),
                name => Word::Identifier(name.to_owned()),
            };
            Ok((word, start, start + length))
        }
        Some(_) => Err(wrong("this character means nothing here")),
    }
}

/// The text in single quotes that `rest` begins with, in which `''` is one quote, and its length as written.
fn quoted(rest: &str) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut characters = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = characters.next() {
        if c != '\'' {
            value.push(c);
        } else if characters.next_if(|(_, next)| *next == '\'').is_some() {
            value.push('\'');
        } else {
            return Some((value, at + 1));
        }
    }
    None
}
