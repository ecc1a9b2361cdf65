//! What expressions ask for, where it can't exist.

use std::collections::{BTreeMap, BTreeSet};

use super::{of_job, tell};
use crate::expression::{Expression, Function, Name, Template};
use crate::nearest::did_you_mean;
use crate::workflow::file::{Job, Place, Text, Workflow};
use crate::workflow::problem::Problem;

/// Said of `failure()` on a job that waits for none.
pub(super) const FAILURE_WITHOUT_NEEDS: &str =
    "`failure()` can't hold: the job needs no other that could fail; add `needs`";
/// Said of `failure()` on a job's first step.
pub(super) const FAILURE_OF_NOTHING: &str = "`failure()` can't hold: no step comes before this one";

/// What a step hands on.
const OF_STEP: [&str; 6] = ["stdout", "stderr", "exit_code", "outcome", "outputs", "changed_files"];
/// What a need hands on.
const OF_NEED: [&str; 2] = ["result", "outputs"];
/// What is known of a run.
const OF_RUN: [&str; 2] = ["id", "name"];
/// What is known of the job itself.
const OF_JOB: [&str; 1] = ["name"];
/// All contexts.
const CONTEXTS: [&str; 7] = ["matrix", "needs", "steps", "previous_step", "run", "job", "env"];

/// Tells of all that is asked for and can't be there.
pub(super) fn check(workflow: &Workflow, problems: &mut Vec<Problem>) {
    for text in &workflow.texts {
        in_text(text, None, problems);
    }
    for job in &workflow.jobs {
        for text in &job.texts {
            in_text(text, Some(job), problems);
        }
    }
}

fn in_text(text: &Text, job: Option<&Job>, problems: &mut Vec<Problem>) {
    let template = match Template::parse(&text.text) {
        Ok(template) => template,
        Err(error) => return tell(problems, text.at, text.key.clone(), error.to_string()),
    };
    for expression in template.expressions() {
        if let Some(wrong) = wrong_status(text.place, expression, job) {
            tell(problems, text.at, text.key.clone(), wrong);
        }
        for name in expression.names() {
            if let Some(wrong) = wrong_name(text.place, name, job) {
                tell(problems, text.at, text.key.clone(), wrong);
            }
        }
        if text.place == Place::Cell
            && let Some(job) = job
            && let Some(Err(wrong)) = job
                .cells
                .iter()
                .map(|cell| crate::workflow::matrix::substitute(&text.text, &cell.values))
                .find(Result::is_err)
            && expression.names().iter().all(|name| wrong_name(text.place, name, Some(job)).is_none())
        {
            tell(problems, text.at, text.key.clone(), wrong);
        }
    }
}

fn wrong_status(place: Place, expression: &Expression, job: Option<&Job>) -> Option<String> {
    let first = expression.status_functions().first()?;
    let failure = expression.status_functions().contains(&Function::Failure);
    match place {
        Place::JobCondition if failure && job.is_some_and(|job| job.needs.is_empty()) => {
            Some(FAILURE_WITHOUT_NEEDS.to_owned())
        }
        Place::StepCondition(0) if failure => Some(FAILURE_OF_NOTHING.to_owned()),
        Place::JobCondition | Place::StepCondition(_) => None,
        _ => Some(format!("`{}()` stands only in `if`", first.as_str())),
    }
}

/// Why a name can't be there, if so.
fn wrong_name(place: Place, name: &Name, job: Option<&Job>) -> Option<String> {
    let step = match place {
        Place::Step(step) | Place::StepCondition(step) => Some(step),
        _ => None,
    };
    match name.root() {
        root if place == Place::Cell && root != "matrix" => Some(format!(
            "`{name}` isn't known before the run, when this is decided; only `${{{{ matrix.<dimension> }}}}` can stand here"
        )),
        "secrets" => Some(
            "secrets aren't part of expressions; list the name in `secrets`, and it is a variable of the steps"
                .to_owned(),
        ),
        "matrix" => match job {
            Some(job) => of_matrix(name, job),
            None => Some(of_the_workflow(name)),
        },
        "needs" => match job {
            Some(job) => of_needs(name, job),
            None => Some(of_the_workflow(name)),
        },
        "steps" => match (job, step) {
            (Some(job), Some(step)) => of_steps(name, job, step),
            _ => Some(format!("`{name}` isn't known here: no step has run yet; only a step's own keys can ask for it")),
        },
        "previous_step" => match step {
            None => Some(format!("`{name}` isn't known here: no step has run yet")),
            Some(0) => Some("`previous_step` isn't known here: no step comes before this one".to_owned()),
            Some(_) => one_of(name, 1, &OF_STEP),
        },
        "run" => one_of(name, 1, &OF_RUN),
        "job" => one_of(name, 1, &OF_JOB),
        "env" => match (place, job) {
            (Place::JobCondition, Some(job)) => of_literal_env(name, job),
            _ => None,
        },
        root => Some(format!("there is no `{root}`{}", did_you_mean(root, CONTEXTS))),
    }
}

fn of_the_workflow(name: &Name) -> String {
    format!("`{name}` isn't known for the workflow as a whole; put the variable into a job's `env`")
}

/// The word at this place of a name has to be one of these, if there is one.
fn one_of(name: &Name, place: usize, known: &[&str]) -> Option<String> {
    let word = name.word(place)?;
    if known.contains(&word) {
        return None;
    }
    let what = Name(name.0[..place].to_vec());
    let meant = did_you_mean(word, known.iter().copied());
    let listed = if meant.is_empty() { format!("; it has {}", known.join(", ")) } else { meant };
    Some(format!("`{what}` has no `{word}`{listed}"))
}

fn of_matrix(name: &Name, job: &Job) -> Option<String> {
    if job.matrix.is_none() {
        return Some(format!("`{name}` isn't known: the job `{}` has no `matrix`", job.name));
    }
    let dimension = name.word(1)?;
    let without = job.cells.iter().find(|cell| !cell.values.contains_key(dimension))?;
    let known: BTreeSet<_> = job.cells.iter().flat_map(|cell| cell.values.keys().map(String::as_str)).collect();
    if known.contains(dimension) {
        return Some(format!("`{}` has no `{dimension}`; give it one with `include`", without.name));
    }
    Some(format!("the matrix of `{}` has no `{dimension}`{}", job.name, did_you_mean(dimension, known)))
}

fn of_needs(name: &Name, job: &Job) -> Option<String> {
    let need = name.word(1)?;
    let needs: Vec<_> = job.needs.iter().map(|need| need.value.as_str()).collect();
    if !needs.contains(&need) {
        let meant = did_you_mean(need, needs);
        let help = if meant.is_empty() { format!("; add `needs: [{need}]`") } else { meant };
        return Some(format!("`{}` doesn't need `{need}`{help}", job.name));
    }
    one_of(name, 2, &OF_NEED)
}

fn of_steps(name: &Name, job: &Job, at: usize) -> Option<String> {
    let wanted = name.word(1)?;
    let names: BTreeMap<_, _> = job
        .template
        .steps
        .iter()
        .enumerate()
        .filter_map(|(index, step)| Some((step.name.as_deref()?, index)))
        .collect();
    match names.get(wanted) {
        None => {
            let earlier = names.iter().filter(|(_, index)| **index < at).map(|(name, _)| *name);
            Some(format!("no step of `{}` has the name `{wanted}`{}", job.name, did_you_mean(wanted, earlier)))
        }
        Some(index) if *index == at => Some(format!("`{name}` isn't known in the step `{wanted}` itself")),
        Some(index) if *index > at => Some(format!("`{name}` isn't known yet: the step `{wanted}` comes later")),
        Some(_) => one_of(name, 2, &OF_STEP),
    }
}

/// A job's condition is decided before a worker has it: only variables written in the file are known.
fn of_literal_env(name: &Name, job: &Job) -> Option<String> {
    let variable = name.word(1)?;
    let workflow = job.template.workflow.as_ref()?;
    if job.template.literal_variables().contains_key(variable) {
        return None;
    }
    let value = job.template.env.get(variable).or_else(|| workflow.workflow_env.get(variable));
    match value {
        Some(value) if Template::is_in(value) => {
            Some(format!("`{name}` isn't known before the job runs: its value is an expression itself"))
        }
        Some(_) => Some(format!(
            "`{name}` isn't known before {} runs: its `env_from` or `secrets` may say something else; write it in the job's `env`",
            of_job(job)
        )),
        None => {
            let known = job.template.env.keys().chain(workflow.workflow_env.keys()).map(String::as_str);
            let meant = did_you_mean(variable, known);
            Some(format!(
                "`{name}` isn't known before {} runs: only what `env` of the job and the workflow say is{meant}",
                of_job(job)
            ))
        }
    }
}
