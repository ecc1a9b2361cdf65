//! What may stand where in a workflow file, as data: one table from which files are judged and the JSON Schema is
//! written, so that the two can't differ.
//!
//! - [`keys`]: the table;
//! - [`judge`]: whether a document has the shape it should, and what was probably meant where it doesn't;
//! - [`schema`]: the same as JSON Schema.

mod judge;
mod keys;
mod schema;

pub(super) use judge::{is_selection, judge};
use keys::SELECTION;
pub(super) use keys::{COMMAND, CONTAINER, HOOKS, HOSTS, WORKFLOW};
pub use schema::schema;

/// What a value looks like.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// A text.
    Text,
    /// A text, or a number or truth value that is taken as it is written.
    Scalar,
    /// True or false.
    Switch,
    /// A whole number within these bounds.
    Count(u32, u32),
    /// An amount, written as a text like this one or as a number; the pattern is for the schema.
    Amount { like: &'static str, pattern: &'static str },
    /// Nothing: `null`.
    Nothing,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list of these.
    List(&'static Shape),
    /// A map from names that the user chooses to these.
    Map(&'static Shape),
    /// A map with known keys.
    Object(&'static Object),
    /// A map with known keys when it has no others, or a list under one of those that want one; else the other shape.
    ObjectOr(&'static Object, &'static Shape),
    /// One of these; which, is told by what kind of value it is.
    OneOf(&'static [Shape]),
}

/// A map with known keys.
#[derive(Debug)]
pub(super) struct Object {
    /// What it is, with its article.
    pub(super) name: &'static str,
    /// Its keys.
    pub(super) keys: &'static [Key],
    /// Keys of which exactly one has to be there.
    pub(super) one_of: &'static [&'static str],
    /// What other keys are, if they may be there: of any name, or those that begin with `x-`.
    pub(super) others: Others,
    /// Keys that other tools have and what to write instead.
    pub(super) foreign: &'static [(&'static str, &'static str)],
}

/// What an object says about keys that it doesn't list.
#[derive(Clone, Copy, Debug)]
pub(super) enum Others {
    /// They are mistakes.
    Refused,
    /// Those that begin with `x-` are the user's own.
    Own,
    /// They are names, with values of this shape.
    Named(&'static Shape),
}

/// A key of an [`Object`].
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) required: bool,
    /// What it says, for the schema.
    pub(super) about: &'static str,
}
