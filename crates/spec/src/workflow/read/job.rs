//! One job of a file.

use std::collections::BTreeMap;

use super::field::{Field, Reader, wrong_name};
use super::{Shared, of_job, step};
use crate::expression::Template;
use crate::job::{JobSpec, MAX_STEPS};
use crate::requirements::ExecutorKind;
use crate::resources::Resources;
use crate::workflow::WorkflowJob;
use crate::workflow::document::{Key, Value};
use crate::workflow::file::{Job, Located, Place, RepositoryCopy, StepPlace, Text, WrittenInput, WrittenOutput};
use crate::workflow::matrix::Matrix;

/// Reads the job called `name`.
pub(super) fn read(reader: &mut Reader<'_>, shared: &mut Shared<'_>, name: &Key, field: &Field<'_>) -> Job {
    if let Some(wrong) = wrong_name(&name.name) {
        reader.tell_at(name.at, &of_job(&name.name), wrong);
    }
    let defaults = shared.defaults.clone();
    let default = |key| defaults.as_ref().and_then(|defaults| defaults.get(key));
    let own_or_default = |key| field.get(key).or_else(|| default(key));
    let mut texts = Vec::new();

    let executor = shared.executors.choose(reader, own_or_default("executor").as_ref());
    let files = super::files::read(reader, field, &mut texts);
    let copies = own_or_default("copy_repo").and_then(|field| field.switch()).unwrap_or(executor.copy_repo);
    if let (Some(no), false) =
        (field.get("copy_repo").filter(|field| field.switch() == Some(false)), files.selected.is_empty())
    {
        reader.tell(&no, "and `files` selects from the repository; leave one of them out");
    }
    let copies = copies || !files.selected.is_empty();
    let copy = match (copies, executor.copy_git) {
        (false, _) => RepositoryCopy::Nothing,
        (true, false) => RepositoryCopy::Files,
        (true, true) => RepositoryCopy::FilesAndGit,
    };
    let condition = reader.condition(field, Place::JobCondition, &mut texts).unwrap_or_default();
    let condition_at = field.get("if").or_else(|| field.get("condition")).map_or(name.at, |field| field.node.at);
    let modified = super::files::modified(reader, field, &mut texts);

    let (template, steps) = template(reader, shared, field, &mut texts);
    if executor.choice.shares_a_container()
        && let Some(field) = own_or_default("resources").filter(|_| template.resources != Resources::default())
    {
        let text = "can't be kept for one job in a container that others share; bound the executor's container with \
                    `cpus`, `memory` and `pids`, or give it `mode: isolated`";
        reader.tell(&field, text);
    }
    if executor.choice.kind == ExecutorKind::Hooks {
        let places = [(!files.selected.is_empty(), "files"), (modified.is_some(), "modified")];
        for field in places.into_iter().filter(|(is_there, _)| *is_there).filter_map(|(_, key)| field.get(key)) {
            let text = "can't be had where hooks make a job's place: they share one copy of the repository, and put what they \
                        like wherever they like";
            reader.tell(&field, text);
        }
    }
    let workflow = WorkflowJob {
        workflow: shared.name.clone(),
        executor: executor.choice,
        condition: match &condition {
            crate::Condition::Shell(script) => Some(script.clone()),
            _ => None,
        },
        workflow_env: shared.env.clone(),
        workflow_env_from: shared.env_from.clone(),
        env_from: field.get("env_from").map(|field| reader.providers(&field)).unwrap_or_default(),
        secrets: secrets(reader, shared, field),
        files: files.written,
        selected: files.selected,
        ..WorkflowJob::default()
    };
    Job {
        name: name.name.clone(),
        at: name.at,
        needs: needs(field),
        need_places: Vec::new(),
        condition,
        condition_at,
        continue_on_error: field.get("continue_on_error").and_then(|field| field.switch()).unwrap_or(false),
        template: JobSpec { workflow: Some(Box::new(workflow)), ..template },
        steps,
        copy,
        inputs: inputs(field, &mut texts),
        outputs: outputs(field, &mut texts),
        local_files: files.local,
        modified,
        matrix: field.get("matrix").filter(Field::is_map).map(|field| field.located(matrix(reader, &field))),
        cells: Vec::new(),
        texts,
    }
}

/// What it is to a worker, but for what it is as part of a workflow.
fn template(
    reader: &mut Reader<'_>,
    shared: &Shared<'_>,
    field: &Field<'_>,
    texts: &mut Vec<Text>,
) -> (JobSpec, Vec<StepPlace>) {
    let default = |key| shared.defaults.as_ref().and_then(|defaults| defaults.get(key));
    let own_or_default = |key| field.get(key).or_else(|| default(key));

    let tries = reader.tries(field.get("retry").as_ref()).or(shared.retry);
    let written = field.get("steps").map(|steps| steps.items()).unwrap_or_default();
    let steps = written.iter().enumerate().map(|(index, written)| step::read(reader, written, index, tries, texts));
    let (steps, places): (Vec<_>, Vec<_>) = steps.unzip();
    if let Some(written) = field.get("steps").filter(|field| matches!(field.node.value, Value::List(_))) {
        if steps.is_empty() {
            reader.tell(&written, "is empty; give at least one step");
        } else if steps.len() > MAX_STEPS {
            reader.tell(&written, format!("has {} entries; at most {MAX_STEPS} are allowed", steps.len()));
        }
    }
    let mut spec = JobSpec::new(steps);
    if let Ok(word) = "workflow".parse() {
        spec.job_type = word;
    }
    for variables in [default("env"), field.get("env")].into_iter().flatten() {
        spec.env.extend(reader.variables(&variables, Place::Job, texts));
    }
    spec.inherit = own_or_default("inherit").map(|field| reader.names(&field)).unwrap_or_default();
    spec.timeout = own_or_default("timeout").and_then(|field| reader.span(&field));
    spec.priority = own_or_default("priority").and_then(|field| reader.value(&field)).unwrap_or_default();
    if let Some(field) = own_or_default("job_retry") {
        (spec.max_retries, spec.backoff) = reader.attempts(&field);
    }
    if let Some(field) = own_or_default("queue")
        && let Some(queue) = reader.value(&field)
    {
        spec.queue = queue;
    }
    for labels in [default("labels"), field.get("labels")].into_iter().flatten() {
        for (key, value) in labels.entries() {
            let Some(text) = value.scalar() else { continue };
            note(&value, &text, texts);
            spec.labels.insert(key.name.clone(), text);
        }
    }
    spec.resources = own_or_default("resources").and_then(|field| reader.value(&field)).unwrap_or_default();
    spec.concurrency_key = field.get("concurrency_key").and_then(|field| {
        let text = field.text()?;
        note(&field, text, texts);
        Some(text.to_owned())
    });
    spec.concurrency_limit = field.get("concurrency_limit").and_then(|field| field.count());
    spec.exclusive = field.get("exclusive").and_then(|field| field.switch()).unwrap_or(false);
    (spec, places)
}

/// Notes a text that is decided before the run.
pub(super) fn note(field: &Field<'_>, text: &str, texts: &mut Vec<Text>) {
    if Template::is_in(text) {
        texts.push(field.expressive(Place::Cell, text));
    }
}

fn needs(field: &Field<'_>) -> Vec<Located<String>> {
    let Some(needs) = field.get("needs") else { return Vec::new() };
    let items = if needs.text().is_some() { vec![needs] } else { needs.items() };
    items.iter().filter_map(|item| Some(item.located(item.text()?.to_owned()))).collect()
}

fn secrets(reader: &mut Reader<'_>, shared: &Shared<'_>, field: &Field<'_>) -> Vec<String> {
    let mut secrets = field.get("secrets").map(|field| reader.names(&field)).unwrap_or_default();
    secrets.extend(shared.secrets.iter().cloned());
    secrets.sort();
    secrets.dedup();
    secrets
}

fn inputs(field: &Field<'_>, texts: &mut Vec<Text>) -> Vec<Located<WrittenInput>> {
    let items = field.get("inputs").map(|inputs| inputs.items()).unwrap_or_default();
    let read = |item: &Field<'_>| {
        let (name, path) = match item.text() {
            Some(name) => (name, ""),
            None => {
                let path = item.get("path").and_then(|path| path.text()).unwrap_or_default();
                (item.get("name")?.text()?, path)
            }
        };
        for field in [Some(item.clone()), item.get("name"), item.get("path")].into_iter().flatten() {
            if let Some(text) = field.text() {
                note(&field, text, texts);
            }
        }
        Some(item.located(WrittenInput { name: name.to_owned(), path: path.to_owned() }))
    };
    items.iter().filter_map(read).collect()
}

fn outputs(field: &Field<'_>, texts: &mut Vec<Text>) -> Vec<Located<WrittenOutput>> {
    let entries = field.get("outputs").map(|outputs| outputs.entries()).unwrap_or_default();
    let read = |(key, value): &(&Key, Field<'_>)| {
        let path = value.text()?;
        // One place for both: the key of a map has no other.
        note(value, &format!("{} {path}", key.name), texts);
        let output = WrittenOutput { name: key.name.clone(), path: path.to_owned() };
        Some(Located { at: key.at, key: value.key.clone(), value: output })
    };
    entries.iter().filter_map(read).collect()
}

fn matrix(reader: &mut Reader<'_>, field: &Field<'_>) -> Matrix {
    let mut matrix = Matrix::default();
    for (key, value) in field.entries() {
        match key.name.as_str() {
            "include" => matrix.include = entries(reader, &value),
            "exclude" => matrix.exclude = entries(reader, &value),
            "max_parallel" => matrix.max_parallel = value.count(),
            name => {
                dimension(reader, key, &value);
                let mut values = Vec::new();
                for item in value.items() {
                    let Some(found) = cell_value(reader, &item) else { continue };
                    if values.contains(&found) {
                        reader.tell(&item, format!("has the value {found} already"));
                    } else {
                        values.push(found);
                    }
                }
                matrix.dimensions.insert(name.to_owned(), values);
            }
        }
    }
    matrix
}

fn entries(reader: &mut Reader<'_>, field: &Field<'_>) -> Vec<BTreeMap<String, serde_json::Value>> {
    let mut entries = Vec::new();
    for item in field.items() {
        let mut entry = BTreeMap::new();
        for (key, value) in item.entries() {
            dimension(reader, key, &value);
            if let Some(value) = cell_value(reader, &value) {
                entry.insert(key.name.clone(), value);
            }
        }
        entries.push(entry);
    }
    entries
}

fn dimension(reader: &mut Reader<'_>, key: &Key, field: &Field<'_>) {
    let fits = key.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        && key.name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !fits {
        reader.tell_at(key.at, &field.key, format!("`{}` is no dimension's name; use letters, digits, `_`", key.name));
    }
}

/// A value of a dimension. A number that would be written otherwise is most likely a version.
fn cell_value(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<serde_json::Value> {
    let value = match field.node.value {
        Value::Text(_) | Value::Number(_) | Value::Bool(_) => field.node.to_json(),
        _ => return None,
    };
    if let (Value::Number(written), serde_json::Value::Number(number)) = (&field.node.value, &value)
        && number.to_string() != *written
    {
        reader.tell(field, format!("`{written}` is the number {number}; if a text is meant, write '{written}'"));
    }
    Some(value)
}
