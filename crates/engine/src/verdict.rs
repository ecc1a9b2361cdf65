//! What an end means: outcome, exit code, and words for people.

use std::time::Duration;

use executr_api::{MemorySource, StepOutcome, Usage};
use executr_executors::contract::{self, Ended, Exit, PeakMemory, StartFailed, StartPhase};
use executr_spec::{JobSpec, Span, Step, StepCommand};

use crate::stop::StopReason;

/// Whose time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeLimit {
    /// The step's.
    Step(Duration),
    /// The whole job's.
    Job(Duration),
    /// Likewise, and to who reads of it the same as its only step's.
    JobOfOneStep(Duration),
    /// That of the steps which run after the job was cancelled or its time was over.
    Aftermath(Duration),
}

/// Why a step is being ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Its time is over.
    TimedOut(TimeLimit),
    /// The attempt is to end.
    Stopped(StopReason),
}

impl Ending {
    fn limit(self) -> Option<TimeLimit> {
        match self {
            Self::TimedOut(limit) => Some(limit),
            Self::Stopped(_) => None,
        }
    }
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StepVerdict {
    pub(crate) outcome: StepOutcome,
    pub(crate) exit_code: Option<i32>,
    /// Why it failed.
    pub(crate) message: Option<String>,
    /// Whether another attempt may end better.
    pub(crate) retryable: bool,
    /// Whose time was over, if any.
    pub(crate) timed_out: Option<TimeLimit>,
    /// The place is lost: nothing more can be run in it.
    pub(crate) place_lost: bool,
    /// It is the run's failure.
    pub(crate) fails_run: bool,
}

impl StepVerdict {
    /// A step that couldn't be run.
    pub(crate) fn failed(message: impl Into<String>, retryable: bool) -> Self {
        Self {
            outcome: StepOutcome::Failed,
            exit_code: None,
            message: Some(message.into()),
            retryable,
            timed_out: None,
            place_lost: false,
            fails_run: false,
        }
    }

    pub(crate) fn is_success(&self) -> bool {
        self.outcome == StepOutcome::Succeeded
    }

    /// A step that was ended before there was anything to end.
    pub(crate) fn ended_early(ending: Ending) -> Self {
        let (outcome, message) = explain_ending(ending);
        Self { outcome, timed_out: ending.limit(), ..Self::failed(message, true) }
    }
}

/// A step whose processes ended.
pub(crate) fn of_end(ended: &Ended, ending: Option<Ending>, spec: &JobSpec) -> StepVerdict {
    let exit_code = match ended.exit {
        Exit::Code(code) => code,
        Exit::Signal(signal) => 128 + signal,
    };
    let (outcome, message) = match (ending, ended.exit) {
        (Some(ending), _) => {
            let (outcome, message) = explain_ending(ending);
            (outcome, Some(message))
        }
        (None, Exit::Code(0)) => (StepOutcome::Succeeded, None),
        (None, exit) => (StepOutcome::Failed, Some(explain_exit(exit, ended.oom_killed, spec))),
    };
    let timed_out = ending.and_then(Ending::limit);
    StepVerdict {
        outcome,
        exit_code: Some(exit_code),
        message,
        retryable: true,
        timed_out,
        place_lost: false,
        fails_run: false,
    }
}

/// A step that couldn't be started.
pub(crate) fn of_failed_start(failed: &StartFailed) -> StepVerdict {
    // What the request itself lacks, it lacks everywhere.
    StepVerdict::failed(failed.failure.message.clone(), failed.phase != StartPhase::Request)
}

fn explain_ending(ending: Ending) -> (StepOutcome, String) {
    match ending {
        Ending::TimedOut(TimeLimit::Step(limit) | TimeLimit::JobOfOneStep(limit)) => {
            (StepOutcome::TimedOut, format!("timed out after {}", Span(limit)))
        }
        Ending::TimedOut(TimeLimit::Job(limit)) => {
            (StepOutcome::TimedOut, format!("timed out: the job's {} are over", Span(limit)))
        }
        Ending::TimedOut(TimeLimit::Aftermath(limit)) => (
            StepOutcome::TimedOut,
            format!("timed out: the job was to end, and {} later a step still ran", Span(limit)),
        ),
        Ending::Stopped(StopReason::Cancelled) => (StepOutcome::Cancelled, "cancelled".to_owned()),
        Ending::Stopped(StopReason::LeaseLost) => (StepOutcome::Cancelled, "its lease was lost".to_owned()),
        Ending::Stopped(StopReason::ShutDown) => (StepOutcome::Cancelled, "the worker was stopped".to_owned()),
        Ending::Stopped(StopReason::NotRenewed) => (
            StepOutcome::Cancelled,
            "ended by its worker: the server couldn't be reached in time, and the job is exclusive".to_owned(),
        ),
    }
}

fn explain_exit(exit: Exit, oom_killed: bool, spec: &JobSpec) -> String {
    if oom_killed {
        return match spec.resources.memory {
            Some(limit) => format!("killed: out of memory (limit {limit})"),
            None => "killed: out of memory".to_owned(),
        };
    }
    match exit {
        Exit::Code(code) => format!("exit code {code}"),
        Exit::Signal(signal) => match signal_name(signal) {
            Some(name) => format!("killed by signal {signal} ({name})"),
            None => format!("killed by signal {signal}"),
        },
    }
}

/// Names of signals, whose numbers are the same on all machines we run on: signal(7).
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return None,
    })
}

/// A step in a message; nothing when the job has no other.
pub(crate) fn with_step(spec: &JobSpec, index: usize, message: &str) -> String {
    match spec.steps.get(index) {
        Some(step) if spec.steps.len() > 1 => format!("step {} `{}`: {message}", index + 1, label(step)),
        _ => message.to_owned(),
    }
}

/// What people call a step.
fn label(step: &Step) -> String {
    const LONGEST: usize = 40;
    let text = match (&step.name, &step.command) {
        (Some(name), _) => name.as_str(),
        (None, StepCommand::Argv(argv)) => argv.first().map_or("", String::as_str),
        (None, StepCommand::Run(script)) => {
            let mut lines = script.lines().map(str::trim);
            lines.find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or("")
        }
        (None, StepCommand::Binary(binary)) => {
            binary.url.rsplit('/').next().and_then(|name| name.split(['?', '#']).next()).unwrap_or("")
        }
    };
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A tree's use as results show it.
pub(crate) fn usage(usage: contract::Usage) -> Usage {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    Usage {
        user_us: micros(usage.user),
        system_us: micros(usage.system),
        peak_memory_bytes: usage.peak_memory,
        peak_memory_source: match usage.peak_memory_of {
            PeakMemory::Tree => MemorySource::Cgroup,
            PeakMemory::LargestProcess => MemorySource::LargestProcess,
        },
    }
}

#[cfg(test)]
mod tests {
    use executr_spec::Bytes;

    use super::*;

    fn ended(exit: Exit, oom_killed: bool) -> Ended {
        Ended { exit, usage: contract::Usage::default(), oom_killed, removal_failure: None }
    }

    fn spec(steps: &[StepCommand]) -> JobSpec {
        JobSpec::new(steps.iter().cloned().map(Step::new).collect())
    }

    fn argv(word: &str) -> StepCommand {
        StepCommand::Argv(vec![word.to_owned()])
    }

    #[test]
    fn ends_have_codes_and_words() {
        let mut job = spec(&[argv("make")]);
        job.resources.memory = Some(Bytes(64 << 20));
        let told = |exit, oom, ending| {
            let verdict = of_end(&ended(exit, oom), ending, &job);
            (verdict.outcome, verdict.exit_code, verdict.message.unwrap_or_default())
        };
        let secs = Duration::from_secs;
        assert_eq!(told(Exit::Code(0), false, None), (StepOutcome::Succeeded, Some(0), String::new()));
        assert_eq!(told(Exit::Code(2), false, None), (StepOutcome::Failed, Some(2), "exit code 2".to_owned()));
        assert_eq!(
            told(Exit::Signal(11), false, None),
            (StepOutcome::Failed, Some(139), "killed by signal 11 (SIGSEGV)".to_owned())
        );
        assert_eq!(
            told(Exit::Signal(9), true, None),
            (StepOutcome::Failed, Some(137), "killed: out of memory (limit 64Mi)".to_owned())
        );
        assert_eq!(
            told(Exit::Signal(15), false, Some(Ending::TimedOut(TimeLimit::Step(secs(5))))),
            (StepOutcome::TimedOut, Some(143), "timed out after 5s".to_owned())
        );
        assert_eq!(
            told(Exit::Code(0), false, Some(Ending::Stopped(StopReason::Cancelled))),
            (StepOutcome::Cancelled, Some(0), "cancelled".to_owned()),
            "who ends well when told to end was told to end"
        );
    }

    #[test]
    fn a_step_is_named_where_there_are_several() {
        assert_eq!(with_step(&spec(&[argv("make")]), 0, "exit code 2"), "exit code 2");
        let script =
            StepCommand::Run("#!/bin/sh\n\n# builds\ncargo build --with a very long list of arguments".to_owned());
        let job = spec(&[argv("true"), script, argv("make")]);
        assert_eq!(with_step(&job, 2, "exit code 2"), "step 3 `make`: exit code 2");
        assert_eq!(with_step(&job, 1, "x"), "step 2 `cargo build --with a very long list of a…`: x");
    }
}
