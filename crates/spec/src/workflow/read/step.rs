//! One step of a job.

use super::Reader;
use super::field::Field;
use super::values::Tries;
use crate::expression::Template;
use crate::step::{BinaryStep, Step, StepCommand};
use crate::workflow::file::{Place, StepPlace, Text};

/// The step at `index` of a job, whose steps are tried `tries` unless they say otherwise.
pub(super) fn read(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    index: usize,
    tries: Tries,
    texts: &mut Vec<Text>,
) -> (Step, StepPlace) {
    let place = Place::Step(index);
    let mut step = Step::new(command(reader, field, place, texts));
    step.name = field.get("name").and_then(|name| reader.label(&name));
    step.env = field.get("env").map(|field| reader.variables(&field, place, texts)).unwrap_or_default();
    step.env_from = field.get("env_from").map(|field| reader.providers(&field)).unwrap_or_default();
    step.timeout = field.get("timeout").and_then(|field| reader.span(&field));
    step.condition = reader.condition(field, Place::StepCondition(index), texts).unwrap_or_default();
    step.retry = reader.tries(field.get("retry").as_ref()).or(tries).decided();
    step.continue_on_error = field.get("continue_on_error").and_then(|field| field.switch()).unwrap_or(false);
    step.workdir = field.get("workdir").and_then(|field| {
        let text = field.text()?;
        texts.push(field.expressive(Place::Cell, text));
        Some(text.to_owned())
    });
    step.image = field.get("image").and_then(|field| super::container::step_image(reader, &field, texts));
    let condition_at = field.get("if").or_else(|| field.get("condition")).map_or(field.node.at, |field| field.node.at);
    (step, StepPlace { at: field.node.at, key: field.key.clone(), condition_at })
}

fn command(reader: &mut Reader<'_>, field: &Field<'_>, place: Place, texts: &mut Vec<Text>) -> StepCommand {
    if let Some(script) = field.text() {
        if Template::is_in(script) {
            reader.tell(field, super::stray("run"));
            // Told here, where it is known to be a script.
            texts.push(field.expressive(place, ""));
        }
        return script_of(reader, field, script);
    }
    if let Some(run) = field.get("run") {
        let script = run.text().unwrap_or_default();
        return script_of(reader, &run, script);
    }
    if let Some(argv) = field.get("argv") {
        let words = words(&argv, place, texts);
        if argv.items().is_empty() || words.first().is_some_and(String::is_empty) {
            reader.tell(&argv, "needs a program as its first word");
        }
        return StepCommand::Argv(words);
    }
    if let Some(binary) = field.get("binary") {
        let (url, sha256) = (binary.get("url"), binary.get("sha256"));
        let args = binary.get("args").map(|args| words(&args, place, texts)).unwrap_or_default();
        let sha256 = sha256.as_ref().and_then(|field| reader.parsed(field, field.text()?));
        if let (Some(url), Some(sha256)) = (url.and_then(|url| url.text()), sha256) {
            return StepCommand::Binary(BinaryStep { url: url.to_owned(), sha256, args });
        }
    }
    // The grammar has told that there is no command.
    StepCommand::Run(String::new())
}

fn script_of(reader: &mut Reader<'_>, field: &Field<'_>, script: &str) -> StepCommand {
    if script.trim().is_empty() && field.text().is_some() {
        reader.tell(field, "is an empty script");
    }
    StepCommand::Run(script.to_owned())
}

fn words(field: &Field<'_>, place: Place, texts: &mut Vec<Text>) -> Vec<String> {
    let items = field.items();
    let words = items.iter().filter_map(|item| Some((item, item.scalar()?)));
    words
        .map(|(item, word)| {
            if Template::is_in(&word) {
                texts.push(item.expressive(place, &word));
            }
            word
        })
        .collect()
}
