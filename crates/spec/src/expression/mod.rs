//! The language between `${{` and `}}`: its grammar, and what a text of it names. What it comes to is decided in the crate
//! `expressions`.
//!
//! - [`words`]: from characters to words;
//! - [`parse`]: from words to a [`Term`];
//! - [`template`]: texts with expressions in them.
//!
//! `docs/expressions.md` has the grammar.

mod parse;
mod template;
mod words;

use serde_json::Value;
use thiserror::Error;

pub use template::{Piece, Template};

/// The most bytes an expression may have.
pub const MAX_EXPRESSION_BYTES: usize = 4096;
/// How deep an expression may nest.
pub const MAX_DEPTH: usize = 64;

/// Why a text is no expression.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{problem} (at `{near}`)")]
pub struct ExpressionError {
    /// What is wrong and what to write.
    pub problem: String,
    /// Where: the text from there on, shortened.
    pub near: String,
    /// Where, in bytes from the beginning of the text.
    pub offset: usize,
}

impl ExpressionError {
    fn new(text: &str, offset: usize, problem: impl Into<String>) -> Self {
        let rest = text.get(offset..).unwrap_or_default();
        let mut near: String = rest.chars().take(24).collect();
        if near.len() < rest.len() {
            near.push('…');
        }
        if near.is_empty() {
            near.push_str("the end");
        }
        Self { problem: problem.into(), near, offset }
    }
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    term: Term,
    names: Vec<Name>,
    status: Vec<Function>,
}

impl Expression {
    /// Reads what stands between `${{` and `}}`.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        let (expression, end) = parse::expression(text, 0)?;
        match end {
            parse::End::Text => Ok(expression),
            parse::End::Braces(at) => {
                Err(ExpressionError::new(text, at, "`}}` ends an expression before its text ends"))
            }
        }
    }

    fn of(term: Term) -> Self {
        let (mut names, mut status) = (Vec::new(), Vec::new());
        term.collect(&mut names, &mut status);
        Self { term, names, status }
    }

    /// What it is made of.
    #[must_use]
    pub fn term(&self) -> &Term {
        &self.term
    }

    /// What it asks its context for, each place where it does.
    #[must_use]
    pub fn names(&self) -> &[Name] {
        &self.names
    }

    /// Which of `success()`, `failure()`, `always()` and `cancelled()` it calls. A condition that calls none of them needs
    /// `success()` to hold besides.
    #[must_use]
    pub fn status_functions(&self) -> &[Function] {
        &self.status
    }
}

/// The part of a name that is known without evaluating: `steps`, `build`, `outputs`, `version`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(pub Vec<String>);

impl Name {
    /// Its first word: the context it is looked up in.
    #[must_use]
    pub fn root(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }

    /// Its word at this place; the root is at 0.
    #[must_use]
    pub fn word(&self, place: usize) -> Option<&str> {
        self.0.get(place).map(String::as_str)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (place, word) in self.0.iter().enumerate() {
            match place {
                0 => f.write_str(word)?,
                _ if words::is_identifier(word) => write!(f, ".{word}")?,
                _ => write!(f, "['{}']", word.replace('\'', "''"))?,
            }
        }
        Ok(())
    }
}

/// A piece of an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Term {
    /// A value as it stands.
    Literal(Value),
    /// A context: `matrix`.
    Context(String),
    /// `a.b`, `a['b']` or `a[0]`.
    Member(Box<Term>, Box<Term>),
    /// `!a`
    Not(Box<Term>),
    /// `a && b` and its like.
    Binary(Operator, Box<Term>, Box<Term>),
    /// `f(a, b)`
    Call(Function, Vec<Term>),
}

impl Term {
    fn collect(&self, names: &mut Vec<Name>, status: &mut Vec<Function>) {
        match self {
            Self::Literal(_) => {}
            Self::Context(root) => names.push(Name(vec![root.clone()])),
            Self::Member(of, by) => {
                if let Some(name) = self.name() {
                    names.push(name);
                    return;
                }
                of.collect(names, status);
                by.collect(names, status);
            }
            Self::Not(term) => term.collect(names, status),
            Self::Binary(_, left, right) => {
                left.collect(names, status);
                right.collect(names, status);
            }
            Self::Call(function, arguments) => {
                if function.asks_status() && !status.contains(function) {
                    status.push(*function);
                }
                for argument in arguments {
                    argument.collect(names, status);
                }
            }
        }
    }

    /// `a.b['c'][0]` as `a`, `b`, `c`, `0`. Nothing when one of them has to be evaluated first.
    fn name(&self) -> Option<Name> {
        match self {
            Self::Context(root) => Some(Name(vec![root.clone()])),
            Self::Member(of, by) => {
                let mut name = of.name()?;
                match &**by {
                    Self::Literal(Value::String(word)) => name.0.push(word.clone()),
                    Self::Literal(Value::Number(number)) => name.0.push(number.to_string()),
                    _ => return None,
                }
                Some(name)
            }
            _ => None,
        }
    }
}

/// What stands between two terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `||`
    Or,
    /// `&&`
    And,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
}

impl Operator {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Or => "||",
            Self::And => "&&",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Greater => ">",
            Self::AtLeast => ">=",
        }
    }
}

/// What can be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Function {
    /// `success()`: nothing before failed or was cancelled.
    Success,
    /// `failure()`: something before failed.
    Failure,
    /// `always()`: true.
    Always,
    /// `cancelled()`: the run was asked to stop.
    Cancelled,
    /// `contains(text, part)`, `contains(list, item)`
    Contains,
    /// `startsWith(text, beginning)`
    StartsWith,
    /// `endsWith(text, end)`
    EndsWith,
    /// `join(list)`, `join(list, between)`; a comma is between by default.
    Join,
    /// `format('{0} of {1}', a, b)`
    Format,
    /// `toJSON(value)`
    ToJson,
    /// `fromJSON(text)`
    FromJson,
}

impl Function {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Success,
        Self::Failure,
        Self::Always,
        Self::Cancelled,
        Self::Contains,
        Self::StartsWith,
        Self::EndsWith,
        Self::Join,
        Self::Format,
        Self::ToJson,
        Self::FromJson,
    ];

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Always => "always",
            Self::Cancelled => "cancelled",
            Self::Contains => "contains",
            Self::StartsWith => "startsWith",
            Self::EndsWith => "endsWith",
            Self::Join => "join",
            Self::Format => "format",
            Self::ToJson => "toJSON",
            Self::FromJson => "fromJSON",
        }
    }

    /// Whether it asks how things went before: only a condition may.
    #[must_use]
    pub fn asks_status(self) -> bool {
        matches!(self, Self::Success | Self::Failure | Self::Always | Self::Cancelled)
    }

    /// The least and the most arguments.
    #[must_use]
    pub fn arity(self) -> (usize, usize) {
        match self {
            Self::Success | Self::Failure | Self::Always | Self::Cancelled => (0, 0),
            Self::ToJson | Self::FromJson => (1, 1),
            Self::Contains | Self::StartsWith | Self::EndsWith => (2, 2),
            Self::Join => (1, 2),
            Self::Format => (1, 100),
        }
    }
}
