//! A happening as text.

use std::borrow::Cow;
use std::io::Write as _;
use std::time::Duration;

use clap::ValueEnum;
use executr_api::{StepEvent, StepMark};
use executr_spec::Timestamp;
use serde_json::{Map, Value, json};

use super::{Happening, StepAt};
use crate::show::time::span;

/// The formats of lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// `[job] text`
    Simple,
    /// `[time] [workflow:…] [job:…] [step:…] [attempt:1/3] text`
    Structured {
        /// The workflow's name.
        workflow: String,
    },
    /// One object a line.
    Json {
        /// The workflow's name.
        workflow: String,
    },
}

/// The formats, as they are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatName {
    /// `[job] text`
    Simple,
    /// With time, workflow, job, step and try
    Structured,
    /// One object a line
    Json,
}

impl Format {
    /// The format of that name.
    pub(crate) fn new(name: FormatName, workflow: &str) -> Self {
        let workflow = workflow.to_owned();
        match name {
            FormatName::Simple => Self::Simple,
            FormatName::Structured => Self::Structured { workflow },
            FormatName::Json => Self::Json { workflow },
        }
    }

    /// Appends the happening as a line; nothing when this format has no line for it.
    pub(crate) fn write(&self, happening: &Happening, now: Timestamp, into: &mut Vec<u8>) {
        match self {
            Self::Simple => simple(happening, into),
            Self::Structured { workflow } => structured(workflow, happening, now, into),
            Self::Json { workflow } => object(workflow, happening, now, into),
        }
    }
}

fn simple(happening: &Happening, into: &mut Vec<u8>) {
    if let Some(job) = happening.job() {
        into.extend_from_slice(format!("[{job}] ").as_bytes());
    }
    let before = into.len();
    if let Happening::Step { mark, .. } = happening {
        into.extend_from_slice(format!("{}: ", step_name(&mark.step)).as_bytes());
    }
    text(happening, into);
    if into.len() == before && !matches!(happening, Happening::Line { .. }) {
        into.clear();
        return;
    }
    into.push(b'\n');
}

fn structured(workflow: &str, happening: &Happening, now: Timestamp, into: &mut Vec<u8>) {
    let mut head = format!("[{now}] [workflow:{workflow}]");
    if let Some(job) = happening.job() {
        head.push_str(&format!(" [job:{job}]"));
    }
    if let Some(StepAt { name, attempt, max_attempts }) = happening.step().as_deref() {
        head.push_str(&format!(" [step:{name}] [attempt:{attempt}/{max_attempts}]"));
    }
    head.push(' ');
    into.extend_from_slice(head.as_bytes());
    text(happening, into);
    into.push(b'\n');
}

fn object(workflow: &str, happening: &Happening, now: Timestamp, into: &mut Vec<u8>) {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    put("time", json!(now.to_string()));
    put("workflow", json!(workflow));
    if let Some(job) = happening.job() {
        put("job", json!(job));
    }
    if let Some(step) = happening.step().as_deref() {
        put("step", json!(step.name));
        put("attempt", json!(step.attempt));
        put("max_attempts", json!(step.max_attempts));
    }
    let event = match happening {
        Happening::RunStarted { run, jobs } => {
            put("run", json!(run));
            put("jobs", json!(jobs));
            "run_started"
        }
        Happening::JobStarted { attempt, .. } => {
            put("attempt", json!(attempt));
            "job_started"
        }
        Happening::Step { mark, .. } => {
            if let Some(code) = mark.exit_code {
                put("exit_code", json!(code));
            }
            if let Some(duration) = mark.duration_ms {
                put("duration_ms", json!(duration));
            }
            if let Some(delay) = mark.delay_ms {
                put("delay_seconds", json!(delay as f64 / 1_000.0));
            }
            if !mark.env.is_empty() {
                put("env", json!(mark.env));
            }
            event_name(mark.event)
        }
        Happening::Line { stream, text, .. } => {
            put("stream", json!(stream));
            match std::str::from_utf8(text) {
                Ok(text) => put("text", json!(text)),
                Err(_) => {
                    use base64::Engine as _;
                    put("text", json!(String::from_utf8_lossy(text)));
                    put("base64", json!(base64::engine::general_purpose::STANDARD.encode(text)));
                }
            }
            "output"
        }
        Happening::Gap { bytes, .. } => {
            put("bytes", json!(bytes));
            "output_gap"
        }
        Happening::JobRetrying { attempt, message, .. } => {
            put("attempt", json!(attempt));
            put("message", json!(message));
            "job_retrying"
        }
        Happening::JobEnded { state, exit_code, message, .. } => {
            put("state", json!(state));
            put("exit_code", json!(exit_code));
            put("message", json!(message));
            "job_ended"
        }
        Happening::DirectoryKept { attempt, path, .. } => {
            put("attempt", json!(attempt));
            put("path", json!(path.display().to_string()));
            "directory_kept"
        }
        Happening::Cancelling { reason } => {
            put("message", json!(reason));
            "run_cancelling"
        }
        Happening::RunEnded { state } => {
            put("state", json!(state));
            "run_ended"
        }
    };
    put("event", json!(event));
    // A map of strings and numbers always has a JSON text.
    drop(serde_json::to_writer(&mut *into, &fields));
    into.push(b'\n');
}

/// A step for people: one without a name is called by its number.
pub(super) fn step_name(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|byte| byte.is_ascii_digit()) { format!("step {name}").into() } else { name.into() }
}

fn event_name(event: StepEvent) -> &'static str {
    match event {
        StepEvent::Start => "start",
        StepEvent::Retry => "retry",
        StepEvent::Failed => "failed",
        StepEvent::Success => "success",
        StepEvent::Skipped => "skipped",
    }
}

/// The words of a happening, without where it happened.
fn text(happening: &Happening, into: &mut Vec<u8>) {
    let words: Cow<'_, str> = match happening {
        Happening::RunStarted { run, jobs } => {
            format!("run {run}: {jobs} job{}", if *jobs == 1 { "" } else { "s" }).into()
        }
        Happening::JobStarted { attempt: 1, .. } => "started".into(),
        Happening::JobStarted { attempt, .. } => format!("started, attempt {attempt}").into(),
        Happening::Step { mark, .. } => step_words(mark).into(),
        Happening::Line { text, .. } => {
            into.extend_from_slice(text);
            return;
        }
        Happening::Gap { bytes, .. } => format!("{bytes} bytes of output were not kept here").into(),
        Happening::JobRetrying { attempt, message, .. } => {
            format!("attempt {attempt} failed{}; there will be another", after_colon(message.as_deref())).into()
        }
        Happening::JobEnded { state, message, .. } => format!("{state}{}", after_colon(message.as_deref())).into(),
        Happening::DirectoryKept { attempt: 1, path, .. } => format!("kept in {}", path.display()).into(),
        Happening::DirectoryKept { attempt, path, .. } => {
            format!("attempt {attempt} kept in {}", path.display()).into()
        }
        Happening::Cancelling { reason } => format!("cancelling: {reason}").into(),
        Happening::RunEnded { state } => format!("run {}", state.as_str()).into(),
    };
    drop(into.write_all(words.as_bytes()));
}

fn after_colon(message: Option<&str>) -> String {
    message.map(|message| format!(": {message}")).unwrap_or_default()
}

fn step_words(mark: &StepMark) -> String {
    let of =
        if mark.max_attempts > 1 { format!(" (try {} of {})", mark.attempt, mark.max_attempts) } else { String::new() };
    let code = mark.exit_code.map(|code| format!(" with exit code {code}")).unwrap_or_default();
    let time = |millis: Option<u64>| millis.map(|millis| span(Duration::from_millis(millis))).unwrap_or_default();
    match mark.event {
        StepEvent::Start => format!("started{of}"),
        StepEvent::Success => format!("done in {}{of}", time(mark.duration_ms)),
        StepEvent::Failed => format!("failed{code}{of}"),
        StepEvent::Retry => format!("failed{code}{of}; again in {}", time(mark.delay_ms)),
        StepEvent::Skipped => "skipped".to_owned(),
    }
}

impl Happening {
    /// The job it happened to.
    pub(crate) fn job(&self) -> Option<&str> {
        match self {
            Self::JobStarted { job, .. }
            | Self::Step { job, .. }
            | Self::Line { job, .. }
            | Self::Gap { job, .. }
            | Self::JobRetrying { job, .. }
            | Self::JobEnded { job, .. }
            | Self::DirectoryKept { job, .. } => Some(job),
            Self::RunStarted { .. } | Self::Cancelling { .. } | Self::RunEnded { .. } => None,
        }
    }

    fn step(&self) -> Option<Cow<'_, StepAt>> {
        match self {
            Self::Step { mark, .. } => Some(Cow::Owned(StepAt::from(mark))),
            Self::Line { step, .. } => step.as_ref().map(Cow::Borrowed),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use executr_api::output::Stream;

    use super::*;

    fn line(format: &Format, happening: &Happening) -> String {
        let mut out = Vec::new();
        format.write(happening, Timestamp(1_700_000_000_000_000), &mut out);
        String::from_utf8(out).expect("text")
    }

    fn mark(event: StepEvent) -> Happening {
        let mark = StepMark {
            event,
            step: "compile".to_owned(),
            attempt: 1,
            max_attempts: 3,
            exit_code: Some(2),
            duration_ms: Some(1_500),
            delay_ms: Some(2_000),
            env: BTreeMap::new(),
        };
        Happening::Step { job: "build".to_owned(), mark }
    }

    fn output() -> Happening {
        let step = Some(StepAt { name: "compile".to_owned(), attempt: 1, max_attempts: 3 });
        Happening::Line { job: "build".to_owned(), step, stream: Stream::Stdout, text: b"hello".to_vec() }
    }

    #[test]
    fn simple_lines_name_the_job() {
        assert_eq!(line(&Format::Simple, &output()), "[build] hello\n");
        let told = line(&Format::Simple, &mark(StepEvent::Retry));
        assert_eq!(told, "[build] compile: failed with exit code 2 (try 1 of 3); again in 2.0s\n");
    }

    #[test]
    fn structured_lines_say_where_and_when() {
        let format = Format::new(FormatName::Structured, "ci");
        let told = line(&format, &output());
        assert!(told.starts_with("[2023-11-14T22:13:20"), "{told}");
        assert!(told.ends_with("] [workflow:ci] [job:build] [step:compile] [attempt:1/3] hello\n"), "{told}");
    }

    #[test]
    fn json_lines_are_objects_with_the_facts() {
        let format = Format::new(FormatName::Json, "ci");
        let told: Value = serde_json::from_str(&line(&format, &mark(StepEvent::Retry))).expect("JSON");
        for (field, value) in [
            ("event", json!("retry")),
            ("job", json!("build")),
            ("step", json!("compile")),
            ("attempt", json!(1)),
            ("max_attempts", json!(3)),
            ("exit_code", json!(2)),
            ("duration_ms", json!(1_500)),
            ("delay_seconds", json!(2.0)),
        ] {
            assert_eq!(told[field], value, "{field}");
        }
    }
}
