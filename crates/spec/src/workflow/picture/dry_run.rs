//! What a run would do.

use super::{condition, counted, needs, one_line};
use crate::retry::Retry;
use crate::step::{Step, StepCommand};
use crate::workflow::plan::{PlannedJob, RunPlan};

/// What would run, in which order, where, under which conditions, how often and how long.
#[must_use]
pub fn dry_run(plan: &RunPlan) -> String {
    let mut written = format!("{}: {}", plan.name, counted(plan.jobs.len(), "job", "jobs"));
    if let Some(timeout) = plan.timeout {
        written.push_str(&format!(", at most {timeout}"));
    }
    written.push_str(if plan.fail_fast {
        "; the first failure stops what has not started\n"
    } else {
        "; a failure stops only what needs it\n"
    });
    for job in &plan.jobs {
        written.push('\n');
        of_job(&mut written, job);
    }
    written
}

fn of_job(written: &mut String, job: &PlannedJob) {
    let mut facts = Vec::new();
    let needs = needs(job);
    if !needs.is_empty() {
        facts.push(format!("after {}", needs.join(", ")));
    }
    facts.extend(condition(&job.condition).map(|condition| format!("if {condition}")));
    let workflow = job.spec.workflow.as_deref();
    if let Some(workflow) = workflow {
        let kind = workflow.executor.kind.as_str();
        let name = &workflow.executor.name;
        facts.push(if name == kind { format!("on {kind}") } else { format!("on {name} ({kind})") });
    }
    if job.spec.max_retries > 0 {
        facts.push(format!("up to {} attempts", u64::from(job.spec.max_retries) + 1));
    }
    facts.extend(job.spec.timeout.map(|timeout| format!("at most {timeout}")));
    if let Some((key, limit)) = job.spec.concurrency() {
        facts.push(format!("at most {limit} at a time of {key}"));
    }
    if job.continue_on_error {
        facts.push("may fail".to_owned());
    }
    line(written, 0, &job.name, &facts);
    for input in workflow.iter().flat_map(|workflow| &workflow.inputs) {
        let into = if input.path.is_empty() { "." } else { &input.path };
        line(written, 2, &format!("gets {} of {} into {into}", input.name, input.from), &[]);
    }
    for (index, step) in job.spec.steps.iter().enumerate() {
        of_step(written, index + 1, step);
    }
    for output in workflow.iter().flat_map(|workflow| &workflow.outputs) {
        line(written, 2, &format!("makes {} of {}", output.name, output.path), &[]);
    }
}

fn of_step(written: &mut String, number: usize, step: &Step) {
    let command = match &step.command {
        StepCommand::Run(script) => one_line(script),
        StepCommand::Argv(argv) => one_line(&argv.join(" ")),
        StepCommand::Binary(binary) => one_line(&format!("{} {}", binary.url, binary.args.join(" "))),
    };
    let what = match &step.name {
        Some(name) => format!("{number}. {name}: {command}"),
        None => format!("{number}. {command}"),
    };
    let mut facts = Vec::new();
    facts.extend(condition(&step.condition).map(|condition| format!("if {condition}")));
    facts.extend(step.image.as_ref().map(|image| format!("on image {}", image.name)));
    facts.extend(step.workdir.as_ref().map(|workdir| format!("in {workdir}")));
    facts.extend(step.retry.filter(|retry| retry.max_attempts > 1).map(tries));
    facts.extend(step.timeout.map(|timeout| format!("at most {timeout}")));
    if step.continue_on_error {
        facts.push("may fail".to_owned());
    }
    line(written, 2, &what, &facts);
}

fn tries(retry: Retry) -> String {
    let waits = retry.waits();
    let some: Vec<_> =
        (1..retry.max_attempts).take(3).map(|failures| crate::time::Span(waits.delay(failures)).to_string()).collect();
    let more = if retry.max_attempts > 4 { " …" } else { "" };
    format!("up to {} tries, {}{more} apart", retry.max_attempts, some.join(", "))
}

fn line(written: &mut String, indent: usize, what: &str, facts: &[String]) {
    let facts = if facts.is_empty() { String::new() } else { format!("  ({})", facts.join("; ")) };
    written.push_str(&format!("{:indent$}{what}{facts}\n", ""));
}
