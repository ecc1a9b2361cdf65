//! The smaller things of a file: variables, sources of variables, conditions, tries.

use std::collections::{BTreeMap, BTreeSet};

use super::field::{Field, Reader};
use crate::backoff::{Backoff, BackoffKind};
use crate::condition::Condition;
use crate::expression::{Expression, Function, Template};
use crate::nearest::did_you_mean;
use crate::retry::Retry;
use crate::time::Span;
use crate::workflow::document::Value;
use crate::workflow::file::{Place, Text};
use crate::workflow::{Provider, SopsFormat};

/// How often steps are tried, as written on one level.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Tries {
    /// As the level above says.
    #[default]
    Inherited,
    /// Once: `null`.
    Once,
    /// This often.
    Given(Retry),
}

impl Tries {
    /// This, or what the level above says.
    pub(super) fn or(self, above: Self) -> Self {
        if self == Self::Inherited { above } else { self }
    }

    /// What it comes to when there is no level above.
    pub(super) fn decided(self) -> Option<Retry> {
        match self {
            Self::Given(retry) => Some(retry),
            Self::Inherited | Self::Once => None,
        }
    }
}

impl Reader<'_> {
    pub(super) fn tries(&mut self, field: Option<&Field<'_>>) -> Tries {
        let Some(field) = field else { return Tries::Inherited };
        if field.is_null() {
            return Tries::Once;
        }
        if let Some(max_attempts) = field.count() {
            return Tries::Given(Retry { max_attempts, ..Retry::default() });
        }
        if !field.is_map() {
            return Tries::Inherited;
        }
        let Backoff { kind, min_time, max_time } = self.backoff(field);
        let max_attempts = field.get("max_attempts").and_then(|field| field.count()).unwrap_or(1);
        Tries::Given(Retry { max_attempts, backoff: kind, min_time, max_time })
    }

    /// How often a job is repeated after its first attempt, and when.
    pub(super) fn attempts(&mut self, field: &Field<'_>) -> (u32, Backoff) {
        match field.count() {
            Some(max_retries) => (max_retries, Backoff::default()),
            None => (field.get("max_retries").and_then(|field| field.count()).unwrap_or(0), self.backoff(field)),
        }
    }

    fn backoff(&mut self, field: &Field<'_>) -> Backoff {
        let usual = Backoff::default();
        let kind = match field.get("backoff").and_then(|field| field.text()) {
            Some("linear") => BackoffKind::Linear,
            Some("constant") => BackoffKind::Constant,
            _ => BackoffKind::Exponential,
        };
        let mut span = |key, usual| match field.get(key).and_then(|field| Some((field.scalar()?, field))) {
            Some((text, field)) => self.parsed::<Span>(&field, &text).unwrap_or(usual),
            None => usual,
        };
        let (min_time, max_time) = (span("min_time", usual.min_time), span("max_time", usual.max_time));
        if min_time > max_time {
            self.tell(field, format!("`min_time` ({min_time}) is longer than `max_time` ({max_time})"));
        }
        Backoff { kind, min_time, max_time }
    }

    /// A condition. Its text is noted in `texts` when it is an expression.
    pub(super) fn condition(&mut self, of: &Field<'_>, place: Place, texts: &mut Vec<Text>) -> Option<Condition> {
        let (one, other) = (of.get("if"), of.get("condition"));
        if let (Some(_), Some(second)) = (&one, &other) {
            self.tell(second, "is the same as `if`; write one of the two");
        }
        let field = one.or(other)?;
        let condition = match &field.node.value {
            Value::Bool(value) => Condition::Expression(value.to_string()),
            Value::Text(text) => Condition::parse(text),
            _ => return None,
        };
        match &condition {
            Condition::Expression(text) => texts.push(field.expressive(place, &format!("${{{{ {text} }}}}"))),
            Condition::Shell(script) => self.script_that_looks_like_an_expression(&field, script),
            _ => {}
        }
        Some(condition)
    }

    fn script_that_looks_like_an_expression(&mut self, field: &Field<'_>, script: &str) {
        let script = script.trim();
        if script.is_empty() {
            return self.tell(field, "is empty; leave it out, or write when it runs");
        }
        if Template::is_in(script) {
            // Told as a stray expression.
            return;
        }
        if let Some(name) = script.strip_suffix("()").filter(|name| name.chars().all(|c| c.is_ascii_alphabetic())) {
            let known = Function::ALL.into_iter().filter(|function| function.asks_status()).map(Function::as_str);
            return self.tell(field, format!("there is no condition `{name}()`{}", did_you_mean(name, known)));
        }
        if Function::ALL.into_iter().any(|function| function.asks_status() && function.as_str() == script) {
            return self.tell(field, format!("would run a program called `{script}`; write `{script}()`"));
        }
        // The last ones are what others call theirs.
        let contexts =
            ["matrix", "needs", "steps", "previous_step", "run", "job", "env", "github", "runner", "vars", "inputs"];
        let is_expression = Expression::parse(script).is_ok_and(|expression| {
            let named = expression.names().iter().any(|name| name.0.len() > 1 && contexts.contains(&name.root()));
            named || !expression.status_functions().is_empty() || script.contains(" == ") || script.contains(" != ")
        });
        if is_expression {
            self.tell(field, format!("would be a script; write `${{{{ {script} }}}}`"));
        }
    }

    /// A map of variables. Those with expressions are noted in `texts`.
    pub(super) fn variables(
        &mut self,
        field: &Field<'_>,
        place: Place,
        texts: &mut Vec<Text>,
    ) -> BTreeMap<String, String> {
        let variables = self.plain_variables(field);
        for (key, value) in field.entries() {
            if let Some(text) = variables.get(&key.name).filter(|text| Template::is_in(text)) {
                texts.push(value.expressive(place, text));
            }
        }
        variables
    }

    fn plain_variables(&mut self, field: &Field<'_>) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::new();
        for (key, value) in field.entries() {
            let Some(text) = value.scalar() else { continue };
            if key.name.is_empty() || key.name.contains(['=', '\0']) {
                let text = format!("`{}` can't be a variable's name; leave out `=` and NUL", key.name.escape_debug());
                self.tell_at(key.at, &field.key, text);
            }
            if text.contains('\0') {
                self.tell(&value, "contains a NUL character, which no program can be given");
            }
            variables.insert(key.name.clone(), text);
        }
        variables
    }

    /// A list of names of variables or secrets, each once.
    pub(super) fn names(&mut self, field: &Field<'_>) -> Vec<String> {
        let mut names = BTreeSet::new();
        for item in field.items() {
            let Some(name) = item.text() else { continue };
            if name.is_empty() || name.contains(['=', '\0']) {
                self.tell(&item, "can't be a variable's name; leave out `=` and NUL");
            } else if !names.insert(name.to_owned()) {
                self.tell(&item, format!("`{name}` stands in this list already"));
            }
        }
        names.into_iter().collect()
    }

    pub(super) fn providers(&mut self, field: &Field<'_>) -> Vec<Provider> {
        field.items().iter().filter_map(|item| self.provider(item)).collect()
    }

    fn provider(&mut self, item: &Field<'_>) -> Option<Provider> {
        let [(key, field)] = &item.entries()[..] else { return None };
        let switch = |key, usual| field.get(key).and_then(|field| field.switch()).unwrap_or(usual);
        let path = |key| field.text().or_else(|| field.get(key).and_then(|field| field.text())).map(str::to_owned);
        match key.name.as_str() {
            "file" => Some(Provider::File { path: path("path")?, required: switch("required", false) }),
            "sops" => Some(Provider::Sops {
                file: path("file")?,
                format: match field.get("format").and_then(|field| field.text()) {
                    Some("json") => SopsFormat::Json,
                    Some("dotenv") => SopsFormat::Dotenv,
                    _ => SopsFormat::Yaml,
                },
                required: switch("required", true),
            }),
            "static" => Some(Provider::Static(self.plain_variables(field))),
            "required" => Some(Provider::Required(self.names(field))),
            "command" => {
                let command: Vec<_> = field.items().iter().filter_map(Field::scalar).collect();
                if command.first().is_none_or(String::is_empty) {
                    self.tell(field, "needs a program as its first word");
                }
                Some(Provider::Command(command))
            }
            _ => None,
        }
    }
}
