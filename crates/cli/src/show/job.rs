//! Jobs as people look at them: in a list, and one in detail.

use executr_api::{AttemptStatus, AttemptView, JobState, JobView, MemorySource, StepOutcome, Usage};
use executr_spec::{JobSpec, Step, StepCommand, Timestamp};

use super::ink::{Ink, Paint};
use super::table::{Align, Cell, Column, Table};
use super::time::{ago, amount, span};

/// Jobs, one a line.
pub(crate) fn jobs_table(jobs: &[JobView], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        Column::new("ID", Align::Left),
        Column::new("TYPE", Align::Left),
        Column::new("STATUS", Align::Left),
        Column::new("EXIT", Align::Right),
        Column::new("PRIORITY", Align::Left),
        Column::new("CREATED", Align::Left),
        Column::new("TOOK", Align::Right),
        Column::shrinking("WHAT"),
    ]);
    for job in jobs {
        table.row(vec![
            job.id.into(),
            job.job_type.to_string().into(),
            Cell::painted(state_word(job.state), status_paint(job.state)),
            job.exit_code.map(|code| code.to_string()).unwrap_or_default().into(),
            job.priority.into(),
            ago(job.created_at, now).into(),
            took(job, now).into(),
            command_line(&job.spec).into(),
        ]);
    }
    table
}

/// The colour of a state.
pub(crate) fn status_paint(state: JobState) -> Paint {
    match state {
        JobState::Completed => Paint::Good,
        JobState::Failed => Paint::Bad,
        JobState::Running | JobState::Cancelling => Paint::Busy,
        JobState::Cancelled | JobState::Skipped | JobState::Scheduled | JobState::Blocked | JobState::Waiting => {
            Paint::Note
        }
        JobState::Ready => Paint::Plain,
    }
}

/// The exact state; what could run now is called by the word people filter by.
fn state_word(state: JobState) -> &'static str {
    if state == JobState::Ready { "pending" } else { state.as_str() }
}

fn took(job: &JobView, now: Timestamp) -> String {
    match (job.started_at, job.completed_at) {
        (Some(start), Some(end)) => span(end.since(start)),
        (Some(start), None) if matches!(job.state, JobState::Running | JobState::Cancelling) => span(now.since(start)),
        _ => String::new(),
    }
}

/// What a job runs, as one would type it.
pub(crate) fn command_line(spec: &JobSpec) -> String {
    let first = spec.steps.first().map(step_line).unwrap_or_default();
    match spec.steps.len() {
        0 | 1 => first,
        steps => format!("{first} (and {} more steps)", steps - 1),
    }
}

fn step_line(step: &Step) -> String {
    match &step.command {
        StepCommand::Argv(argv) => words(argv),
        StepCommand::Run(script) => {
            let mut lines = script.lines().filter(|line| !line.trim().is_empty());
            let first = lines.next().unwrap_or_default().trim().to_owned();
            if lines.next().is_some() { first + " …" } else { first }
        }
        StepCommand::Binary(binary) => {
            let name = match binary.url.strip_prefix("blob:") {
                Some(digest) => format!("blob:{}", digest.get(..12).unwrap_or(digest)),
                None => binary.url.clone(),
            };
            if binary.args.is_empty() { name } else { format!("{name} {}", words(&binary.args)) }
        }
    }
}

/// Words with quotes where a shell would need them.
fn words(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    let quoted: Vec<_> = words
        .iter()
        .map(|word| match word.chars().all(plain) && !word.is_empty() {
            true => word.clone(),
            false => format!("'{}'", word.replace('\'', r"'\''")),
        })
        .collect();
    quoted.join(" ")
}

/// One job in detail.
pub(crate) fn job_lines(job: &JobView, now: Timestamp, ink: Ink) -> String {
    let mut lines = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            lines += &format!("{} {value}\n", ink.paint(Paint::Note, &format!("{name:<12}")));
        }
    };
    let when = |time: Option<Timestamp>| time.map(|time| format!("{time} ({})", ago(time, now))).unwrap_or_default();
    line("id", &job.id.to_string());
    line("type", job.job_type.as_str());
    line("status", &ink.paint(status_paint(job.state), state_word(job.state)));
    line("waiting for", job.waiting_for.as_deref().unwrap_or_default());
    line("exit code", &job.exit_code.map(|code| code.to_string()).unwrap_or_default());
    line("error", job.error_message.as_deref().unwrap_or_default());
    line("what", &command_line(&job.spec));
    line("sha256", &job.binary_sha256.map(|digest| digest.to_string()).unwrap_or_default());
    line("queue", job.spec.queue.as_str());
    line("priority", job.priority.as_str());
    line("created", &when(Some(job.created_at)));
    line("started", &when(job.started_at));
    line("ended", &when(job.completed_at));
    line("took", &took(job, now));
    line("executor", &job.executor_id.as_ref().map(ToString::to_string).unwrap_or_default());
    if job.max_retries > 0 {
        line("retries", &format!("{} of {}", job.retry_count, job.max_retries));
    }
    line("next attempt", &when(job.retry_after.filter(|_| job.state == JobState::Scheduled)));
    if job.lost_leases > 0 {
        line("lost leases", &job.lost_leases.to_string());
    }
    line("used", &job.usage.map(used).unwrap_or_default());
    let output = if job.output_bytes > 0 {
        format!("{}: executr logs {}", amount(job.output_bytes), job.id)
    } else {
        String::new()
    };
    line("output", &output);
    for attempt in job.attempts.iter().flatten() {
        line(&format!("attempt {}", attempt.attempt), &attempt_line(attempt, ink));
        for step in &attempt.steps {
            let outcome = match step.outcome {
                StepOutcome::Succeeded => "succeeded",
                StepOutcome::Failed => "failed",
                StepOutcome::TimedOut => "ran out of time",
                StepOutcome::Cancelled => "cancelled",
                StepOutcome::Skipped => "skipped",
            };
            line("", &format!("step {}: {outcome}", step.name));
        }
    }
    lines
}

fn attempt_line(attempt: &AttemptView, ink: Ink) -> String {
    let (word, paint) = match attempt.status {
        AttemptStatus::Running => ("running", Paint::Busy),
        AttemptStatus::Completed => ("completed", Paint::Good),
        AttemptStatus::Failed => ("failed", Paint::Bad),
        AttemptStatus::Cancelled => ("cancelled", Paint::Note),
        AttemptStatus::Lost => ("lost", Paint::Bad),
        AttemptStatus::Returned => ("returned", Paint::Note),
    };
    let mut line = ink.paint(paint, word).into_owned();
    if let Some(ended) = attempt.ended_at {
        line += &format!(" after {}", span(ended.since(attempt.started_at)));
    }
    line += &format!(" on {}", attempt.executor_id);
    if let Some(code) = attempt.exit_code.filter(|code| *code != 0) {
        line += &format!(", exit code {code}");
    }
    if let Some(message) = &attempt.error_message {
        line += &format!(": {message}");
    }
    line
}

fn used(usage: Usage) -> String {
    let processor = std::time::Duration::from_micros(usage.user_us.saturating_add(usage.system_us));
    let whose = match usage.peak_memory_source {
        MemorySource::Cgroup => "at most",
        MemorySource::LargestProcess => "largest process",
    };
    format!("{} of processor time; {whose} {} of memory", span(processor), amount(usage.peak_memory_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> JobSpec {
        serde_json::from_str(json).expect("a job")
    }

    #[test]
    fn a_job_is_shown_as_one_would_type_it() {
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let blob = format!(r#"{{"steps":[{{"binary":{{"url":"blob:{digest}","sha256":"{digest}","args":["a"]}}}}]}}"#);
        for (json, line) in [
            (r#"{"steps":[{"argv":["sh","-c","it's; x"]}]}"#, r"sh -c 'it'\''s; x'"),
            (r#"{"steps":[{"run":"\n  make\nmake test\n"}]}"#, "make …"),
            (r#"{"steps":[{"run":"make"},{"run":"x"}]}"#, "make (and 1 more steps)"),
            (&blob, "blob:ba7816bf8f01 a"),
        ] {
            assert_eq!(command_line(&spec(json)), line);
        }
    }
}
