//! What can be found wrong with a workflow before anything of it runs, besides its shape.
//!
//! - [`graph`]: needs and their order; cells of matrices;
//! - [`artifacts`]: who makes what, and who gets it;
//! - [`names`]: what expressions ask for, where it can't exist;
//! - [`paths`]: paths that lead out of the job directory, or into each other.

mod artifacts;
mod graph;
mod names;
mod paths;

use std::collections::BTreeMap;

use super::file::{Job, Workflow};
use super::problem::{Position, Problem};
use crate::condition::Condition;

/// Tells everything that is wrong, and fills in what follows from all jobs together: places of needs, order, cells,
/// artifacts.
pub(super) fn check(workflow: &mut Workflow, problems: &mut Vec<Problem>) {
    graph::check(workflow, problems);
    graph::multiply(workflow, problems);
    artifacts::check(workflow, problems);
    names::check(workflow, problems);
    for job in &workflow.jobs {
        paths::check(job, problems);
        conditions(job, problems);
        steps(job, problems);
        limits(job, problems);
    }
}

fn tell(problems: &mut Vec<Problem>, at: Position, key: impl Into<String>, text: impl Into<String>) {
    problems.push(Problem { at: Some(at), key: key.into(), text: text.into() });
}

fn of_job(job: &Job) -> String {
    format!("jobs.{}", job.name)
}

/// Conditions that can never hold. Those in expressions are found with their names.
fn conditions(job: &Job, problems: &mut Vec<Problem>) {
    if job.condition == Condition::Failure && job.needs.is_empty() {
        tell(problems, job.condition_at, of_job(job), names::FAILURE_WITHOUT_NEEDS);
    }
    if let (Some(first), Some(place)) = (job.template.steps.first(), job.steps.first())
        && first.condition == Condition::Failure
    {
        tell(problems, place.condition_at, place.key.clone(), names::FAILURE_OF_NOTHING);
    }
}

/// Two steps of one name: `steps.<name>` could mean either.
fn steps(job: &Job, problems: &mut Vec<Problem>) {
    let mut seen = BTreeMap::new();
    for (step, place) in job.template.steps.iter().zip(&job.steps) {
        let Some(name) = &step.name else { continue };
        if let Some(line) = seen.insert(name, place.at.line) {
            tell(
                problems,
                place.at,
                place.key.clone(),
                format!("another step `{name}` stands in line {line}; give this one another name"),
            );
        }
    }
}

/// What every job is held to, also one that belongs to no workflow.
fn limits(job: &Job, problems: &mut Vec<Problem>) {
    let key = of_job(job);
    let inside =
        |problem: &Problem| problem.key.strip_prefix(&key).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric));
    if problems.iter().any(inside) {
        return;
    }
    if let Err(error) = job.template.validate() {
        tell(problems, job.at, format!("{key}.{}", error.field), error.problem);
    }
    if let (Some(matrix), Some(_)) = (&job.matrix, &job.template.concurrency_key)
        && matrix.value.max_parallel.is_some()
    {
        tell(
            problems,
            matrix.at,
            matrix.key.clone(),
            "`max_parallel` and the job's `concurrency_key` exclude each other; keep one",
        );
    }
}
