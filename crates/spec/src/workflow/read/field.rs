//! A value of the document with its key, and what reads them.

use std::str::FromStr;

use serde::de::DeserializeOwned;

use crate::time::Span;
use crate::workflow::document::{Key, Node, Value};
use crate::workflow::file::{Located, Place, Text};
use crate::workflow::problem::Problem;

/// A value and its key from the top of the file.
#[derive(Clone, Debug)]
pub(super) struct Field<'a> {
    pub(super) node: &'a Node,
    pub(super) key: String,
}

impl<'a> Field<'a> {
    /// The value of a key of a map.
    pub(super) fn get(&self, key: &str) -> Option<Self> {
        self.entries().into_iter().find(|(found, _)| found.name == key).map(|(_, field)| field)
    }

    /// The keys and values of a map.
    pub(super) fn entries(&self) -> Vec<(&'a Key, Self)> {
        let Value::Map(entries) = &self.node.value else { return Vec::new() };
        let dot = if self.key.is_empty() { "" } else { "." };
        entries.iter().map(|(key, node)| (key, Self { node, key: format!("{}{dot}{}", self.key, key.name) })).collect()
    }

    /// The values of a list.
    pub(super) fn items(&self) -> Vec<Self> {
        let Value::List(items) = &self.node.value else { return Vec::new() };
        items.iter().enumerate().map(|(index, node)| Self { node, key: format!("{}[{index}]", self.key) }).collect()
    }

    pub(super) fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.node.value, Value::Null)
    }

    /// A text, and nothing else.
    pub(super) fn text(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A text, or a number or truth value as it is written.
    pub(super) fn scalar(&self) -> Option<String> {
        match &self.node.value {
            Value::Text(text) | Value::Number(text) => Some(text.clone()),
            Value::Bool(value) => Some(value.to_string()),
            _ => None,
        }
    }

    pub(super) fn switch(&self) -> Option<bool> {
        match self.node.value {
            Value::Bool(value) => Some(value),
            _ => None,
        }
    }

    pub(super) fn count(&self) -> Option<u32> {
        match &self.node.value {
            Value::Number(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// The value with its place.
    pub(super) fn located<T>(&self, value: T) -> Located<T> {
        Located { at: self.node.at, key: self.key.clone(), value }
    }

    /// This text as one that may have expressions in it.
    pub(super) fn expressive(&self, place: Place, text: &str) -> Text {
        Text { at: self.node.at, key: self.key.clone(), place, text: text.to_owned() }
    }
}

/// Reads values and tells what is wrong with them.
pub(super) struct Reader<'p> {
    pub(super) problems: &'p mut Vec<Problem>,
    /// What the grammar has found already.
    judged: usize,
}

impl<'p> Reader<'p> {
    pub(super) fn new(problems: &'p mut Vec<Problem>) -> Self {
        let judged = problems.len();
        Self { problems, judged }
    }

    pub(super) fn tell(&mut self, field: &Field<'_>, text: impl Into<String>) {
        self.problems.push(Problem { at: Some(field.node.at), key: field.key.clone(), text: text.into() });
    }

    /// Whether something about this value's shape is told already.
    fn is_told(&self, field: &Field<'_>) -> bool {
        self.problems[..self.judged].iter().any(|problem| problem.key.starts_with(&field.key))
    }

    /// A value that reads itself.
    pub(super) fn value<T: DeserializeOwned>(&mut self, field: &Field<'_>) -> Option<T> {
        if self.is_told(field) {
            return None;
        }
        match serde_json::from_value(field.node.to_json()) {
            Ok(value) => Some(value),
            Err(error) => {
                self.tell(field, error.to_string());
                None
            }
        }
    }

    /// A text that means something.
    pub(super) fn parsed<T: FromStr<Err: ToString>>(&mut self, field: &Field<'_>, text: &str) -> Option<T> {
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.tell(field, error.to_string());
                None
            }
        }
    }

    /// A duration; not of no length.
    pub(super) fn span(&mut self, field: &Field<'_>) -> Option<Span> {
        let text = match &field.node.value {
            Value::Text(text) | Value::Number(text) => text,
            _ => return None,
        };
        let span: Span = self.parsed(field, text)?;
        if span.0.is_zero() {
            self.tell(field, "0 would end it at once; leave it out for no limit");
            return None;
        }
        Some(span)
    }

    /// What a thing is called: 1 to 200 bytes without control characters.
    pub(super) fn label(&mut self, field: &Field<'_>) -> Option<String> {
        let text = field.text()?;
        if text.is_empty() || text.len() > 200 || text.contains(char::is_control) {
            self.tell(field, "give it a name of 1 to 200 bytes, without control characters");
            return None;
        }
        Some(text.to_owned())
    }
}

/// Why a text can't be the name of a job, an executor or an artifact: they become parts of paths.
pub(in crate::workflow) fn wrong_name(name: &str) -> Option<String> {
    if name.is_empty() || name.len() > 200 {
        return Some("give it a name of 1 to 200 bytes".to_owned());
    }
    wrong_characters(name)
}

/// The same, however long it is: the names of a matrix's cells are longer than those in files.
#[must_use]
pub fn wrong_characters(name: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if let Some(c) = name.chars().find(|c| !allowed(*c)) {
        return Some(format!("`{name}` contains {c:?}; use letters, digits, `-`, `_` and `.`"));
    }
    let first = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    (!first).then(|| format!("`{name}` has to begin with a letter, a digit or `_`"))
}
