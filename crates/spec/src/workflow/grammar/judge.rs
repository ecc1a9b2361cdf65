//! Whether a document has the shape it should have, and what was probably meant where it doesn't.

use super::{Key, Object, Others, SELECTION, Shape};
use crate::nearest::did_you_mean;
use crate::workflow::document::{self, Node, Value};
use crate::workflow::problem::{Position, Problem};

/// Tells everything about `node` that isn't as `object` says.
pub(in crate::workflow) fn judge(node: &Node, object: &'static Object, problems: &mut Vec<Problem>) {
    Judge { problems }.object(node, object, &mut String::new());
}

struct Judge<'a> {
    problems: &'a mut Vec<Problem>,
}

impl Judge<'_> {
    fn tell(&mut self, at: Position, path: &str, text: String) {
        self.problems.push(Problem { at: Some(at), key: path.to_owned(), text });
    }

    fn value(&mut self, node: &Node, shape: Shape, path: &mut String) {
        let Some(shape) = chosen(node, shape) else {
            return self.tell(node.at, path, format!("{} belongs here, not {}", in_words(shape), node.kind()));
        };
        match (shape, &node.value) {
            (Shape::List(of), Value::List(items)) => {
                for (index, item) in items.iter().enumerate() {
                    inside(path, &format!("[{index}]"), |path| self.value(item, *of, path));
                }
            }
            (Shape::Map(of), Value::Map(entries)) => {
                for (key, value) in entries {
                    inside(path, &dotted(&key.name), |path| self.value(value, *of, path));
                }
            }
            (Shape::Object(object), Value::Map(_)) => self.object(node, object, path),
            (Shape::Word(words), Value::Text(word)) if !words.contains(&word.as_str()) => {
                let text = format!("`{word}` means nothing here; write {}", in_words(shape));
                self.tell(node.at, path, text);
            }
            (Shape::Count(least, most), Value::Number(text)) => {
                let fits = text.parse::<u32>().is_ok_and(|number| (least..=most).contains(&number));
                if !fits {
                    self.tell(node.at, path, format!("{text} doesn't fit here; write {}", in_words(shape)));
                }
            }
            _ => {}
        }
    }

    fn object(&mut self, node: &Node, object: &'static Object, path: &mut String) {
        let Value::Map(entries) = &node.value else {
            let text = format!("{} is a map of keys and values, not {}", object.name, node.kind());
            return self.tell(node.at, path, text);
        };
        for (key, value) in entries {
            let known = object.keys.iter().find(|known| known.name == key.name);
            let shape = match (known, object.others) {
                (Some(known), _) => known.shape,
                (None, _) if foreign(object, key).is_some() => {
                    self.unknown(key, object, path);
                    continue;
                }
                (None, Others::Named(shape)) => *shape,
                (None, Others::Own) if key.name.starts_with("x-") => continue,
                (None, _) => {
                    self.unknown(key, object, path);
                    continue;
                }
            };
            inside(path, &dotted(&key.name), |path| self.value(value, shape, path));
        }
        let has = |name: &str| entries.iter().any(|(key, _)| key.name == name);
        // A key that was written in other words isn't missing besides.
        let meant = |name: &str| {
            let instead = format!("write `{name}`");
            entries.iter().any(|(key, _)| foreign(object, key).is_some_and(|told| told.starts_with(&instead)))
        };
        for Key { name, .. } in object.keys.iter().filter(|key| key.required) {
            if !has(name) && !meant(name) {
                self.tell(node.at, path, format!("{} needs `{name}`", object.name));
            }
        }
        let given: Vec<_> = object.one_of.iter().filter(|name| has(name)).collect();
        if !object.one_of.is_empty() && given.len() != 1 && !object.one_of.iter().any(|name| meant(name)) {
            let count = if given.is_empty() { "needs one of" } else { "has only one of" };
            self.tell(node.at, path, format!("{} {count} {}", object.name, listed(object.one_of)));
        }
    }

    fn unknown(&mut self, key: &document::Key, object: &'static Object, path: &mut String) {
        let name = &key.name;
        let told = match foreign(object, key) {
            Some(instead) => format!("`{name}` is no key of {}; {instead}", object.name),
            None => {
                let known = object.keys.iter().map(|key| key.name);
                format!("`{name}` is no key of {}{}", object.name, did_you_mean(name, known))
            }
        };
        inside(path, &dotted(name), |path| self.tell(key.at, path, told));
    }
}

/// What to write instead of a key that other tools have, or that is written the way they do.
fn foreign(object: &Object, key: &document::Key) -> Option<String> {
    if let Some((_, instead)) = object.foreign.iter().find(|(name, _)| *name == key.name) {
        return Some((*instead).to_owned());
    }
    let snake = snake_case(&key.name);
    let known = snake != key.name && object.keys.iter().any(|known| known.name == snake);
    known.then(|| format!("write `{snake}`"))
}

/// `continueOnError` and `continue-on-error` as `continue_on_error`.
fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() && !snake.ends_with('_') {
            snake.push('_');
        }
        snake.push(if c == '-' { '_' } else { c.to_ascii_lowercase() });
    }
    snake
}

/// Of the shapes that a value may have, the one that it is meant to have.
fn chosen(node: &Node, shape: Shape) -> Option<Shape> {
    let fits = match (shape, &node.value) {
        (Shape::ObjectOr(object, other), _) => {
            let shape = if is_meant(node, object) { Shape::Object(object) } else { *other };
            return chosen(node, shape);
        }
        (Shape::OneOf(shapes), _) => return shapes.iter().find_map(|shape| chosen(node, *shape)),
        (Shape::Text | Shape::Word(_), Value::Text(_))
        | (Shape::Scalar, Value::Text(_) | Value::Number(_) | Value::Bool(_))
        | (Shape::Switch, Value::Bool(_))
        | (Shape::Count(..), Value::Number(_))
        | (Shape::Amount { .. }, Value::Text(_) | Value::Number(_))
        | (Shape::Nothing, Value::Null)
        | (Shape::List(_), Value::List(_))
        | (Shape::Map(_) | Shape::Object(_), Value::Map(_)) => true,
        _ => false,
    };
    fits.then_some(shape)
}

/// Whether a map among `files` is a selection.
pub(in crate::workflow) fn is_selection(node: &Node) -> bool {
    is_meant(node, &SELECTION)
}

/// Whether a map is meant to be this object, rather than one from names that the user chooses.
fn is_meant(node: &Node, object: &Object) -> bool {
    let Value::Map(entries) = &node.value else { return false };
    let known = |key: &document::Key| object.keys.iter().find(|known| known.name == key.name);
    let wants_list = |key: &Key| matches!(key.shape, Shape::List(_));
    let has_list =
        entries.iter().any(|(key, value)| matches!(value.value, Value::List(_)) && known(key).is_some_and(wants_list));
    has_list || !entries.is_empty() && entries.iter().all(|(key, _)| known(key).is_some())
}

/// What belongs somewhere, in words.
fn in_words(shape: Shape) -> String {
    match shape {
        Shape::Text => "a text".to_owned(),
        Shape::Scalar => "a text or a number".to_owned(),
        Shape::Switch => "true or false".to_owned(),
        Shape::Count(least, u32::MAX) => format!("a whole number from {least} on"),
        Shape::Count(least, most) => format!("a whole number from {least} to {most}"),
        Shape::Amount { like, .. } => format!("an amount like {like}"),
        Shape::Nothing => "null".to_owned(),
        Shape::Word(words) => listed(words),
        Shape::List(_) => "a list".to_owned(),
        Shape::Map(_) => "a map".to_owned(),
        Shape::Object(object) => format!("{} as a map", object.name),
        Shape::ObjectOr(object, other) => format!("{} as a map, or {}", object.name, in_words(*other)),
        Shape::OneOf(shapes) => shapes.iter().map(|shape| in_words(*shape)).collect::<Vec<_>>().join(", or "),
    }
}

fn listed(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

fn dotted(name: &str) -> String {
    format!(".{name}")
}

/// Goes one step further down for the time of `then`.
fn inside(path: &mut String, step: &str, then: impl FnOnce(&mut String)) {
    let length = path.len();
    path.push_str(if path.is_empty() { step.trim_start_matches('.') } else { step });
    then(path);
    path.truncate(length);
}
