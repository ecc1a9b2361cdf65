//! The graph for <https://mermaid.js.org>.

use super::condition;
use crate::workflow::plan::RunPlan;

/// The graph as a flowchart.
#[must_use]
pub fn mermaid(plan: &RunPlan) -> String {
    let mut written = "flowchart LR\n".to_owned();
    for (place, job) in plan.jobs.iter().enumerate() {
        let condition = condition(&job.condition).map(|text| format!("<br>if {}", escaped(&text))).unwrap_or_default();
        written.push_str(&format!("    j{place}[\"{}{condition}\"]\n", escaped(&job.name)));
    }
    for (place, job) in plan.jobs.iter().enumerate() {
        for need in &job.needs {
            written.push_str(&format!("    j{need} --> j{place}\n"));
        }
    }
    written
}

/// Characters that mean something to mermaid, as it wants them.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        if c.is_alphanumeric() || " -_./=()':".contains(c) {
            escaped.push(c);
        } else {
            escaped.push_str(&format!("#{};", u32::from(c)));
        }
    }
    escaped
}
