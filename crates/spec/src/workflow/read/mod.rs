//! From a document to a [`Workflow`]: inheritance is applied on the way.
//!
//! The document has been judged by the grammar before, and everything about its shape is told. So what has the wrong
//! shape is passed over here as if it weren't there, and no job is lost for it: what is found later is found as well.
//!
//! - [`field`]: a value of the document with its key; what reads them and tells what is wrong;
//! - [`job`], [`step`]: those; [`files`]: what goes into a job's directory and comes back; [`values`]: the smaller things;
//! - [`executors`]: executors by name, each once; [`container`], [`command`]: the settings of `oci` and `command`.

mod command;
mod container;
mod executors;
mod field;
mod files;
mod hosts;
mod job;
mod step;
mod values;

pub use self::field::wrong_characters;
pub(super) use self::field::wrong_name;

use std::collections::HashSet;

use self::field::{Field, Reader};
use self::values::Tries;
use super::document::{Node, Value};
use super::file::{Job, Place, Workflow};
use super::problem::{Position, Problem};
use crate::expression::Template;

/// The most jobs a file may have.
const MAX_JOBS: usize = 20_000;

/// Reads a judged document.
pub(super) fn read(root: &Node, problems: &mut Vec<Problem>) -> Workflow {
    let mut reader = Reader::new(problems);
    let top = Field { node: root, key: String::new() };
    let mut shared = reader.shared(&top);
    let jobs = top.get("jobs");
    let entries = jobs.iter().flat_map(Field::entries);
    let jobs: Vec<_> = entries.map(|(key, field)| job::read(&mut reader, &mut shared, key, &field)).collect();
    if jobs.is_empty() && matches!(root.value, Value::Map(_)) && top.get("jobs").is_some_and(|jobs| jobs.is_map()) {
        reader.tell_at(root.at, "jobs", "is empty; a workflow has at least one job");
    }
    if jobs.len() > MAX_JOBS {
        reader.tell_at(root.at, "jobs", format!("has {} entries; at most {MAX_JOBS} are allowed", jobs.len()));
    }
    let texts = shared.texts.clone();
    let workflow = Workflow {
        name: shared.name,
        fail_fast: top.get("fail_fast").and_then(|field| field.switch()).unwrap_or(true),
        timeout: top.get("timeout").and_then(|field| reader.span(&field)),
        jobs,
        order: Vec::new(),
        texts,
    };
    strays(root, &workflow, problems);
    workflow
}

/// What all jobs of a workflow have in common.
struct Shared<'a> {
    name: String,
    env: std::collections::BTreeMap<String, String>,
    env_from: Vec<super::Provider>,
    secrets: Vec<String>,
    retry: Tries,
    defaults: Option<Field<'a>>,
    executors: executors::Executors,
    texts: Vec<super::file::Text>,
}

impl<'p> Reader<'p> {
    fn shared<'a>(&mut self, top: &Field<'a>) -> Shared<'a> {
        let name = top.get("name").and_then(|field| self.label(&field)).unwrap_or_else(|| "workflow".to_owned());
        let defaults = top.get("defaults");
        let of_defaults = |key| defaults.as_ref().and_then(|defaults| defaults.get(key));
        let lowest = self.tries(of_defaults("retry").as_ref());
        let mut texts = Vec::new();
        let env = top.get("env").map(|field| self.variables(&field, Place::Workflow, &mut texts)).unwrap_or_default();
        Shared {
            name,
            env,
            env_from: top.get("env_from").map(|field| self.providers(&field)).unwrap_or_default(),
            secrets: top.get("secrets").map(|field| self.names(&field)).unwrap_or_default(),
            retry: self.tries(top.get("retry").as_ref()).or(lowest),
            executors: executors::Executors::read(self, top),
            defaults,
            texts,
        }
    }
}

/// Tells of expressions where nothing evaluates them.
fn strays(root: &Node, workflow: &Workflow, problems: &mut Vec<Problem>) {
    let of_jobs = |job: &'_ Job| job.texts.iter().map(|text| text.key.clone()).collect::<Vec<_>>();
    let mut evaluated: HashSet<_> = workflow.jobs.iter().flat_map(of_jobs).collect();
    evaluated.extend(workflow.texts.iter().map(|text| text.key.clone()));
    let mut open = vec![Field { node: root, key: String::new() }];
    while let Some(field) = open.pop() {
        match &field.node.value {
            Value::Text(text) if Template::is_in(text) && !evaluated.contains(&field.key) => {
                problems.push(Problem { at: Some(field.node.at), text: stray(&field.key), key: field.key });
            }
            Value::List(_) => open.extend(field.items()),
            Value::Map(_) => {
                for (key, value) in field.entries() {
                    let own = field.key.is_empty() && key.name.starts_with("x-");
                    if Template::is_in(&key.name) && !evaluated.contains(&value.key) {
                        let text = stray(&value.key);
                        problems.push(Problem { at: Some(key.at), key: field.key.clone(), text });
                    }
                    if !own {
                        open.push(value);
                    }
                }
            }
            _ => {}
        }
    }
}

fn stray(key: &str) -> String {
    let told = match key.rsplit('.').next() {
        Some("run") => "`${{ }}` in a script would become part of the program; put it in `env` and use the variable",
        Some("if" | "condition") => {
            "a condition is one `${{ … }}` or a script without any; put the value in `env` and use the variable"
        }
        _ if key.starts_with("executors.") || key.contains(".executor.") => {
            "`${{ }}` isn't evaluated in executors; scripts of `hooks` have the variables `EXECUTR_…`, an `argv` has placeholders \
             like `{job_id}`"
        }
        _ => "`${{ }}` isn't evaluated here",
    };
    told.to_owned()
}

/// Where to say something about a job as a whole.
fn of_job(name: &str) -> String {
    format!("jobs.{name}")
}

impl Reader<'_> {
    fn tell_at(&mut self, at: Position, key: &str, text: impl Into<String>) {
        self.problems.push(Problem { at: Some(at), key: key.to_owned(), text: text.into() });
    }
}
