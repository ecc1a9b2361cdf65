//! A plan as people look at it: its graph as [`text`], [`mermaid`] or [`dot`], and what a run of it would do, in [`dry_run`].

mod dot;
mod dry_run;
mod mermaid;
mod text;

pub use dot::dot;
pub use dry_run::dry_run;
pub use mermaid::mermaid;
pub use text::text;

use super::plan::{PlannedJob, RunPlan};
use crate::condition::Condition;

/// How far each job is from the beginning: 0 without needs, else one more than the furthest of those it needs.
fn depths(plan: &RunPlan) -> Vec<usize> {
    let mut depths: Vec<usize> = Vec::with_capacity(plan.jobs.len());
    for job in &plan.jobs {
        let needs = job.needs.iter().filter_map(|need| depths.get(*need as usize));
        depths.push(needs.max().map_or(0, |deepest| deepest + 1));
    }
    depths
}

/// What a job needs, by the names of the file: `build`, and `test (4)` for a matrix.
fn needs(job: &PlannedJob) -> Vec<String> {
    let Some(workflow) = &job.spec.workflow else { return Vec::new() };
    let name = |(name, jobs): (&String, &Vec<String>)| match jobs.len() {
        1 => name.clone(),
        several => format!("{name} ({several})"),
    };
    workflow.needs.iter().map(name).collect()
}

/// A condition, unless it is the usual one; on one line and not too long.
fn condition(of: &Condition) -> Option<String> {
    (*of != Condition::Success).then(|| one_line(&of.to_string()))
}

/// The first line of a text, shortened.
fn one_line(text: &str) -> String {
    let trimmed = text.trim();
    let first = trimmed.lines().next().unwrap_or_default();
    let short: String = first.chars().take(60).collect();
    if short.len() < trimmed.len() { format!("{short} …") } else { short }
}

fn counted(number: usize, one: &str, several: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {several}") }
}
