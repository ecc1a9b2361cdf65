//! The graph for <https://graphviz.org>.

use super::condition;
use crate::workflow::plan::RunPlan;

/// The graph as a digraph.
#[must_use]
pub fn dot(plan: &RunPlan) -> String {
    let mut written = format!("digraph \"{}\" {{\n    rankdir=LR;\n    node [shape=box];\n", escaped(&plan.name));
    for (place, job) in plan.jobs.iter().enumerate() {
        let condition = condition(&job.condition).map(|text| format!("\\nif {}", escaped(&text))).unwrap_or_default();
        written.push_str(&format!("    j{place} [label=\"{}{condition}\"];\n", escaped(&job.name)));
    }
    for (place, job) in plan.jobs.iter().enumerate() {
        for need in &job.needs {
            written.push_str(&format!("    j{need} -> j{place};\n"));
        }
    }
    written.push_str("}\n");
    written
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
