//! A YAML document (JSON is YAML) with the place of everything in it.
//!
//! What a text could do to its reader is bounded: its size, how deep it nests, and what its aliases unfold to.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};

use super::problem::{Position, Problem};

/// The most bytes a workflow file may have.
pub const MAX_FILE_BYTES: usize = 4 << 20;
/// How deep lists and maps may nest.
const MAX_DEPTH: usize = 64;
/// What a document may cost once its aliases are unfolded: its texts' bytes, and [`NODE_COST`] for each node.
const MAX_COST: usize = 96 << 20;
/// About what a node takes in memory.
const NODE_COST: usize = 96;

/// A value and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) value: Value,
}

/// A value by YAML's core schema.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// As it is written: `1.10` stays apart from `1.1`.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key of a map and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Key {
    pub(super) at: Position,
    pub(super) name: String,
}

impl Node {
    /// The kind of value in words, with its article.
    pub(super) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing (null)",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// The same value as JSON.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Number(text) => number(text).map_or_else(|| text.clone().into(), serde_json::Value::Number),
            Value::Text(text) => text.clone().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => entries.iter().map(|(key, node)| (key.name.clone(), node.to_json())).collect(),
        }
    }
}

/// The number that a plain scalar is by YAML's core schema.
fn number(text: &str) -> Option<serde_json::Number> {
    if let Some(octal) = text.strip_prefix("0o") {
        return digits(octal).then(|| u64::from_str_radix(octal, 8).ok()).flatten().map(Into::into);
    }
    if let Some(hex) = text.strip_prefix("0x") {
        let fits = !hex.is_empty() && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        return fits.then(|| u64::from_str_radix(hex, 16).ok()).flatten().map(Into::into);
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits(unsigned) {
        let text = text.strip_prefix('+').unwrap_or(text);
        let whole = text.parse::<i64>().map(Into::into).or_else(|_| text.parse::<u64>().map(Into::into));
        return whole.ok().or_else(|| serde_json::Number::from_f64(text.parse().ok()?));
    }
    let starts = unsigned.strip_prefix('.').unwrap_or(unsigned).starts_with(|c: char| c.is_ascii_digit());
    let fits = unsigned.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    (starts && fits).then(|| text.parse::<f64>().ok()).flatten().and_then(serde_json::Number::from_f64)
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A plain scalar by YAML's core schema. `yes`, `no`, `on` and `off` are texts.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if number(text).is_some() => Value::Number(text.to_owned()),
        _ => Value::Text(text.to_owned()),
    }
}

fn position(marker: Marker) -> Position {
    let bounded = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Position { line: bounded(marker.line().max(1)), column: bounded(marker.col() + 1) }
}

fn problem(at: Position, text: impl Into<String>) -> Problem {
    Problem { at: Some(at), key: String::new(), text: text.into() }
}

/// Reads the one document of a text. Keys that stand twice are told in `problems`; anything else that is wrong ends it.
pub(super) fn read(text: &str, problems: &mut Vec<Problem>) -> Result<Node, Problem> {
    let start = Position { line: 1, column: 1 };
    if text.len() > MAX_FILE_BYTES {
        let text = format!("has {} bytes; a workflow file has at most {MAX_FILE_BYTES}", text.len());
        return Err(Problem { at: None, key: String::new(), text });
    }
    let mut parser = Parser::new_from_str(text);
    let mut builder = Builder { problems, open: Vec::new(), done: None, anchors: HashMap::new(), cost: 0 };
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| syntax(&error))?;
        builder.take(event, position(span.start))?;
    }
    builder.done.ok_or_else(|| problem(start, "is empty; a workflow has at least `jobs`"))
}

fn syntax(error: &ScanError) -> Problem {
    let at = position(*error.marker());
    match error.info() {
        "recursion limit exceeded" => too_deep(at),
        info => problem(at, format!("this is neither YAML nor JSON: {info}")),
    }
}

fn too_deep(at: Position) -> Problem {
    problem(at, format!("nests deeper than {MAX_DEPTH} levels"))
}

/// A list or map that isn't closed yet.
struct Open {
    at: Position,
    anchor: usize,
    holder: Holder,
}

enum Holder {
    List(Vec<Node>),
    Map { entries: Vec<(Key, Node)>, key: Option<Key>, lines: HashMap<String, u32> },
}

/// What an anchor stands for.
struct Anchored {
    node: Node,
    cost: usize,
    depth: usize,
}

struct Builder<'a> {
    problems: &'a mut Vec<Problem>,
    open: Vec<Open>,
    done: Option<Node>,
    anchors: HashMap<usize, Anchored>,
    cost: usize,
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, at: Position) -> Result<(), Problem> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.spend(NODE_COST + text.len(), at)?;
                if self.wants_key() {
                    return self.key(&text, at);
                }
                let node = Node { at, value: scalar(&text, style, tag.as_deref(), at)? };
                self.anchor(anchor, &node)?;
                self.put(node)
            }
            Event::SequenceStart(anchor, tag) => {
                untagged(tag.as_deref(), "seq", at)?;
                self.push(Open { at, anchor, holder: Holder::List(Vec::new()) })
            }
            Event::MappingStart(anchor, tag) => {
                untagged(tag.as_deref(), "map", at)?;
                let holder = Holder::Map { entries: Vec::new(), key: None, lines: HashMap::new() };
                self.push(Open { at, anchor, holder })
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { at, anchor, holder }) = self.open.pop() else { return Ok(()) };
                let value = match holder {
                    Holder::List(items) => Value::List(items),
                    Holder::Map { entries, .. } => Value::Map(entries),
                };
                let node = Node { at, value };
                self.anchor(anchor, &node)?;
                self.put(node)
            }
            Event::Alias(anchor) => self.alias(anchor, at),
            Event::DocumentStart(_) if self.done.is_some() => {
                Err(problem(at, "a second document begins here; a workflow file holds one"))
            }
            _ => Ok(()),
        }
    }

    fn spend(&mut self, cost: usize, at: Position) -> Result<(), Problem> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > MAX_COST {
            return Err(problem(at, "the file grows too large here; its aliases (`*name`) repeat too much"));
        }
        Ok(())
    }

    fn push(&mut self, open: Open) -> Result<(), Problem> {
        let at = open.at;
        self.spend(NODE_COST, at)?;
        if self.wants_key() {
            return Err(problem(at, "a key is a plain text here, not a list or a map"));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(at));
        }
        self.open.push(open);
        Ok(())
    }

    fn wants_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { holder: Holder::Map { key: None, .. }, .. }))
    }

    fn key(&mut self, name: &str, at: Position) -> Result<(), Problem> {
        let Some(Open { holder: Holder::Map { key, lines, .. }, .. }) = self.open.last_mut() else { return Ok(()) };
        if name == "<<" {
            return Err(problem(at, "`<<` is no part of YAML 1.2; put what jobs share into `defaults`"));
        }
        if let Some(line) = lines.insert(name.to_owned(), at.line) {
            let text = format!("`{name}` stands here already, in line {line}; write it once");
            self.problems.push(problem(at, text));
        }
        *key = Some(Key { at, name: name.to_owned() });
        Ok(())
    }

    fn put(&mut self, node: Node) -> Result<(), Problem> {
        match self.open.last_mut().map(|open| &mut open.holder) {
            None => self.done = Some(node),
            Some(Holder::List(items)) => items.push(node),
            Some(Holder::Map { entries, key, .. }) => {
                let Some(key) = key.take() else {
                    return Err(problem(node.at, "a key is a plain text here, not a list or a map"));
                };
                entries.push((key, node));
            }
        }
        Ok(())
    }

    fn anchor(&mut self, anchor: usize, node: &Node) -> Result<(), Problem> {
        if anchor > 0 {
            let cost = cost(node);
            self.spend(cost, node.at)?;
            self.anchors.insert(anchor, Anchored { node: node.clone(), cost, depth: depth(node) });
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, at: Position) -> Result<(), Problem> {
        let Some(Anchored { node, cost, depth }) = self.anchors.get(&anchor) else {
            return Err(problem(at, "an alias stands inside of what it means; that has no end"));
        };
        let (cost, depth) = (*cost, *depth);
        if self.open.len() + depth > MAX_DEPTH {
            return Err(too_deep(at));
        }
        // Looked up anew because the copy is made only when it is affordable.
        let key = match (&node.value, self.wants_key()) {
            (Value::Text(text), true) => Some(text.clone()),
            (_, true) => return Err(problem(at, "a key is a plain text here, not a list or a map")),
            (_, false) => None,
        };
        self.spend(cost, at)?;
        if let Some(key) = key {
            return self.key(&key, at);
        }
        let Some(Anchored { node, .. }) = self.anchors.get(&anchor) else { return Ok(()) };
        let node = Node { at, value: node.value.clone() };
        self.put(node)
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Position) -> Result<Value, Problem> {
    let found = if style == ScalarStyle::Plain { plain(text) } else { Value::Text(text.to_owned()) };
    let Some(tag) = tag else { return Ok(found) };
    match (tag.suffix.as_str(), plain(text)) {
        _ if !tag.is_yaml_core_schema() => {}
        ("str", _) => return Ok(Value::Text(text.to_owned())),
        ("null", value @ Value::Null)
        | ("bool", value @ Value::Bool(_))
        | ("int" | "float", value @ Value::Number(_)) => return Ok(value),
        _ => {}
    }
    Err(wrong_tag(tag, at))
}

fn untagged(tag: Option<&Tag>, own: &str, at: Position) -> Result<(), Problem> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == own) => Err(wrong_tag(tag, at)),
        _ => Ok(()),
    }
}

fn wrong_tag(tag: &Tag, at: Position) -> Problem {
    problem(at, format!("the tag `{}{}` means nothing here; leave it out", tag.handle, tag.suffix))
}

fn cost(node: &Node) -> usize {
    NODE_COST
        + match &node.value {
            Value::Number(text) | Value::Text(text) => text.len(),
            Value::List(items) => items.iter().map(cost).sum(),
            Value::Map(entries) => {
                entries.iter().map(|(key, node)| NODE_COST + key.name.len() + cost(node)).sum::<usize>()
            }
            Value::Null | Value::Bool(_) => 0,
        }
}

fn depth(node: &Node) -> usize {
    match &node.value {
        Value::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Map(entries) => 1 + entries.iter().map(|(_, node)| depth(node)).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn json(text: &str) -> serde_json::Value {
        let mut problems = Vec::new();
        let node = read(text, &mut problems).unwrap_or_else(|problem| panic!("{text}: {problem}"));
        assert_eq!(problems, [], "{text}");
        node.to_json()
    }

    fn refused(text: &str) -> Problem {
        let mut problems = Vec::new();
        match read(text, &mut problems) {
            Err(problem) => problem,
            Ok(_) => problems.remove(0),
        }
    }

    #[test]
    fn yaml_and_json_are_the_same() {
        let yaml = "a: 1\nb: [x, 'true', true, ~, 1.5]\nc:\n  - d: |\n      two\n      lines\n";
        let written = r#"{
	"a": 1, "b": ["x", "true", true, null, 1.5],
	"c": [{"d": "two\nlines\n"}]
}"#;
        assert_eq!(json(yaml), json(written));
        assert_eq!(json(yaml), serde_json::from_str::<serde_json::Value>(written).expect("JSON"));
    }

    #[test]
    fn plain_scalars_are_read_by_the_core_schema() {
        for (text, kind) in [
            ("12", "a number"),
            ("-1.5e3", "a number"),
            ("0x1F", "a number"),
            (".5", "a number"),
            ("on", "a text"),
            ("no", "a text"),
            ("1.2.3", "a text"),
            ("12:30", "a text"),
            ("e5", "a text"),
            ("-", "a text"),
            ("~", "nothing (null)"),
            ("True", "true or false"),
        ] {
            assert_eq!(Node { at: Position { line: 1, column: 1 }, value: plain(text) }.kind(), kind, "{text}");
        }
        assert_eq!(json("a: 1.10\nb: 0o17\nc: !!str 1\n"), serde_json::json!({"a": 1.1, "b": 15, "c": "1"}));
    }

    #[test]
    fn everything_has_its_place() {
        let node = read("a:\n  - ü: x\n", &mut Vec::new()).expect("a document");
        let Value::Map(top) = &node.value else { panic!("no map") };
        assert_eq!(top[0].0.at, Position { line: 1, column: 1 });
        let Value::List(items) = &top[0].1.value else { panic!("no list") };
        let Value::Map(inner) = &items[0].value else { panic!("no map") };
        assert_eq!((inner[0].0.at.to_string(), inner[0].1.at.to_string()), ("2:5".to_owned(), "2:8".to_owned()));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, at, told) in [
            ("a: 1\nb: 2\na: 3\n", "3:1", "in line 1"),
            ("a: [1\nb: 2\n", "2:2", "neither YAML nor JSON"),
            ("a: 1\n---\nb: 2\n", "2:1", "second document"),
            ("", "1:1", "empty"),
            ("a: !secret x\n", "1:", "tag"),
            ("<<: {a: 1}\n", "1:1", "defaults"),
            ("[a]: 1\n", "1:1", "a key is a plain text"),
            ("a: &x [*x]\n", "1:8", "no end"),
        ] {
            let problem = refused(text);
            let found = problem.at.expect(text).to_string();
            assert!(found.starts_with(at) && problem.text.contains(told), "{text}: {found}: {problem}");
        }
    }

    #[test]
    fn aliases_can_be_used_and_cannot_explode() {
        assert_eq!(json("a: &x {k: v}\nb: *x\n"), serde_json::json!({"a": {"k": "v"}, "b": {"k": "v"}}));
        let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
        for level in 1..12 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
            writeln!(laughs, "a{level}: &a{level} [{aliases}]").expect("a text grows");
        }
        assert!(refused(&laughs).text.contains("too large"));
        let long = "x".repeat(1 << 20);
        let repeated = format!("a: &a {long}\nb: [{}]\n", vec!["*a"; 1000].join(", "));
        assert!(refused(&repeated).text.contains("too large"));
    }

    #[test]
    fn size_and_depth_are_bounded() {
        assert!(refused(&" ".repeat(MAX_FILE_BYTES + 1)).text.contains("bytes"));
        assert!(refused(&"[".repeat(100_000)).text.contains("deep"));
        assert!(refused(&"- ".repeat(100_000)).text.contains("deep"));
        assert!(refused(&"{a: ".repeat(1_000)).text.contains("deep"));
    }
}
