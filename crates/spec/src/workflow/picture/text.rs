//! The graph as text, in layers.

use super::{condition, counted, depths, needs};
use crate::workflow::plan::RunPlan;

/// The graph: jobs that could run at the same time stand together.
#[must_use]
pub fn text(plan: &RunPlan) -> String {
    let depths = depths(plan);
    let mut written = format!("{}: {}\n", plan.name, counted(plan.jobs.len(), "job", "jobs"));
    let width = plan.jobs.iter().map(|job| job.name.chars().count()).max().unwrap_or(0);
    for layer in 0..=depths.iter().copied().max().unwrap_or(0) {
        let jobs = plan.jobs.iter().zip(&depths).filter(|(_, depth)| **depth == layer).map(|(job, _)| job);
        for (index, job) in jobs.enumerate() {
            let number = if index == 0 { (layer + 1).to_string() } else { String::new() };
            let mut line = format!("{number:>3}  {:width$}", job.name);
            let needs = needs(job);
            if !needs.is_empty() {
                line.push_str(&format!("  ← {}", needs.join(", ")));
            }
            if let Some(condition) = condition(&job.condition) {
                line.push_str(&format!("  if {condition}"));
            }
            written.push_str(&format!("{}\n", line.trim_end()));
        }
    }
    written
}
