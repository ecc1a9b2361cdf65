//! The rules by which the jobs of a run follow from each other.

use std::time::Duration;

use executr_api::{JobState, RunState};
use executr_spec::{RequirementClass, Span, WorkerId};

use crate::Gate;

/// What happened before a job, however far before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// Something failed, and `continue_on_error` didn't take it.
    pub failed: bool,
    /// Something was cancelled.
    pub cancelled: bool,
}

impl Before {
    /// What happened before a job with two needs: either.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { failed: self.failed | other.failed, cancelled: self.cancelled | other.cancelled }
    }

    /// What a job that ended in `state` hands on to its successors, with `self` before it.
    #[must_use]
    pub fn with(self, state: JobState, continue_on_error: bool) -> Self {
        self.and(Self { failed: counts_as_failure(state, continue_on_error), cancelled: state == JobState::Cancelled })
    }
}

/// Whether a job that ended in `state` makes its run fail.
#[must_use]
pub fn counts_as_failure(state: JobState, continue_on_error: bool) -> bool {
    state == JobState::Failed && !continue_on_error
}

/// Whether a run lets jobs go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stop {
    /// It does.
    #[default]
    No,
    /// A job failed, and the first failure stops what has not started.
    AfterFailure,
    /// It was asked to stop.
    Asked,
    /// It was asked to stop at once.
    AtOnce,
}

impl Stop {
    /// How a run stands that isn't final, of whose jobs `failed` count as failures.
    #[must_use]
    pub fn of(cancelling: bool, fail_fast: bool, failed: u64) -> Self {
        match (cancelling, fail_fast && failed > 0) {
            (true, _) => Self::Asked,
            (false, true) => Self::AfterFailure,
            (false, false) => Self::No,
        }
    }

    /// Whether the run was asked.
    #[must_use]
    pub fn is_asked(self) -> bool {
        matches!(self, Self::Asked | Self::AtOnce)
    }
}

/// What becomes of a job whose needs are all final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It goes on as any job does: ready, or blocked by its key.
    Go,
    /// The coordinator is asked.
    Ask,
    /// It is skipped, with this message.
    Skip(&'static str),
    /// It is cancelled, with the message of its run ([`why_stopped`]).
    Cancel,
}

/// What becomes of a job whose needs are all final.
#[must_use]
pub fn after_needs(gate: Gate, before: Before, stop: Stop) -> Turn {
    match (gate, stop) {
        (_, Stop::AtOnce) => Turn::Cancel,
        (Gate::Always, _) | (Gate::Cancelled, Stop::Asked) => Turn::Go,
        (Gate::Ask, _) => Turn::Ask,
        (Gate::Cancelled, _) => Turn::Skip("its run was not cancelled"),
        (_, Stop::Asked) => Turn::Cancel,
        (Gate::AskUnlessCancelled, _) => Turn::Ask,
        (Gate::Failure, _) if before.failed => Turn::Go,
        (Gate::Failure, _) => Turn::Skip("nothing before it failed"),
        (Gate::Success | Gate::AskAfterSuccess, _) if before.failed => Turn::Skip("a job before it failed"),
        (Gate::Success | Gate::AskAfterSuccess, _) if before.cancelled => Turn::Skip("a job before it was cancelled"),
        (Gate::Success | Gate::AskAfterSuccess, Stop::AfterFailure) => Turn::Cancel,
        (Gate::Success, Stop::No) => Turn::Go,
        (Gate::AskAfterSuccess, Stop::No) => Turn::Ask,
    }
}

/// Whether a job with this gate goes on, or is left running, when its run was asked to stop.
#[must_use]
pub fn outlives_cancel(gate: Gate) -> bool {
    matches!(gate, Gate::Always | Gate::Cancelled | Gate::Ask)
}

/// Whether a job that no worker has, and whose needs are all final or don't count, is cancelled because its run stops. `attempt` is 0
/// before it was handed out first.
#[must_use]
pub fn is_stopped(gate: Gate, state: JobState, attempt: u32, stop: Stop) -> bool {
    let pending = matches!(state, JobState::Waiting | JobState::Blocked | JobState::Ready | JobState::Scheduled);
    pending
        && match stop {
            Stop::No => false,
            Stop::AfterFailure => attempt == 0 && matches!(gate, Gate::Success | Gate::AskAfterSuccess),
            Stop::Asked => !outlives_cancel(gate),
            Stop::AtOnce => true,
        }
}

/// How a run ends: `failed` of its jobs count as failures, `cancelled` of them were cancelled.
#[must_use]
pub fn end_of_run(cancelling: bool, failed: u64, cancelled: u64) -> RunState {
    if cancelling {
        RunState::Cancelled
    } else if failed > 0 {
        RunState::Failed
    } else if cancelled > 0 {
        RunState::Cancelled
    } else {
        RunState::Completed
    }
}

/// What a run says whose job of this name failed first.
#[must_use]
pub fn first_failure(job: &str) -> String {
    format!("job `{job}` failed")
}

/// Why a run is cancelled whose `timeout` is over.
#[must_use]
pub fn took_too_long(timeout: Duration) -> String {
    format!("it took longer than its timeout of {}", Span(timeout))
}

/// What a job says that was cancelled because its run, which says `run_message`, stops.
#[must_use]
pub fn why_stopped(stop: Stop, run_message: Option<&str>) -> String {
    let why = run_message.unwrap_or_default();
    if stop.is_asked() { why.to_owned() } else { format!("not started: {why}") }
}

/// What a job says whose condition was answered with no.
pub const CONDITION_SAID_NO: &str = "its condition is not met";

/// What an event says of an attempt that ended because its job was handed out again.
pub const LEASE_RAN_OUT: &str = "its lease ran out";

/// The class in which a pinned job stands in the ready set, made of its own class `own`, the holder of its workspace and,
/// if its lease ran out, the worker that has it: that worker was away, so whoever takes the job over holds the workspace
/// from then on.
#[must_use]
pub fn pinned_class(own: &RequirementClass, holder: Option<&WorkerId>, has_it: Option<&WorkerId>) -> RequirementClass {
    own.on_worker(holder.filter(|holder| has_it != Some(holder)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Before = Before { failed: false, cancelled: false };
    const FAILURE: Before = Before { failed: true, cancelled: false };
    const CANCELLATION: Before = Before { failed: false, cancelled: true };

    #[test]
    fn each_gate_looks_at_what_came_before() {
        let turns = |gate| [NOTHING, FAILURE, CANCELLATION].map(|before| after_needs(gate, before, Stop::No));
        assert!(matches!(turns(Gate::Success), [Turn::Go, Turn::Skip(_), Turn::Skip(_)]));
        assert!(matches!(turns(Gate::Failure), [Turn::Skip(_), Turn::Go, Turn::Skip(_)]));
        assert!(matches!(turns(Gate::Always), [Turn::Go, Turn::Go, Turn::Go]));
        assert!(matches!(turns(Gate::Cancelled), [Turn::Skip(_), Turn::Skip(_), Turn::Skip(_)]));
        assert!(matches!(turns(Gate::AskAfterSuccess), [Turn::Ask, Turn::Skip(_), Turn::Skip(_)]));
        assert!(matches!(turns(Gate::Ask), [Turn::Ask, Turn::Ask, Turn::Ask]));
        assert!(matches!(turns(Gate::AskUnlessCancelled), [Turn::Ask, Turn::Ask, Turn::Ask]));
    }

    #[test]
    fn a_stopping_run_starts_only_what_asks_for_it() {
        let turns = |gate| [Stop::AfterFailure, Stop::Asked].map(|stop| after_needs(gate, NOTHING, stop));
        assert_eq!(turns(Gate::Success), [Turn::Cancel, Turn::Cancel]);
        assert_eq!(turns(Gate::AskAfterSuccess), [Turn::Cancel, Turn::Cancel]);
        assert_eq!(turns(Gate::Always), [Turn::Go, Turn::Go]);
        assert_eq!(turns(Gate::Ask), [Turn::Ask, Turn::Ask]);
        assert_eq!(turns(Gate::AskUnlessCancelled), [Turn::Ask, Turn::Cancel]);
        assert!(matches!(turns(Gate::Cancelled), [Turn::Skip(_), Turn::Go]));
        assert_eq!(after_needs(Gate::Failure, FAILURE, Stop::AfterFailure), Turn::Go);
        assert_eq!(after_needs(Gate::Failure, FAILURE, Stop::Asked), Turn::Cancel);
        assert!(matches!(after_needs(Gate::Success, FAILURE, Stop::AfterFailure), Turn::Skip(_)));
    }

    #[test]
    fn what_was_handed_out_once_outlives_a_failure_elsewhere() {
        assert!(is_stopped(Gate::Success, JobState::Ready, 0, Stop::AfterFailure));
        assert!(!is_stopped(Gate::Success, JobState::Ready, 1, Stop::AfterFailure));
        assert!(is_stopped(Gate::Success, JobState::Scheduled, 1, Stop::Asked));
        assert!(is_stopped(Gate::Failure, JobState::Ready, 0, Stop::Asked));
        assert!(!is_stopped(Gate::Failure, JobState::Ready, 0, Stop::AfterFailure));
        assert!(!is_stopped(Gate::Always, JobState::Ready, 0, Stop::Asked));
        assert!(is_stopped(Gate::AskUnlessCancelled, JobState::Ready, 0, Stop::Asked));
        assert!(!is_stopped(Gate::AskUnlessCancelled, JobState::Ready, 0, Stop::AfterFailure));
        assert!(!is_stopped(Gate::Success, JobState::Running, 1, Stop::Asked));
    }

    #[test]
    fn nothing_outlives_a_cancellation_at_once() {
        for gate in Gate::ALL {
            assert_eq!(after_needs(gate, FAILURE, Stop::AtOnce), Turn::Cancel);
            assert!(is_stopped(gate, JobState::Waiting, 0, Stop::AtOnce));
            assert!(!is_stopped(gate, JobState::Running, 1, Stop::AtOnce), "a worker has it");
        }
    }

    #[test]
    fn ends_are_handed_on() {
        assert_eq!(NOTHING.with(JobState::Failed, false), FAILURE);
        assert_eq!(NOTHING.with(JobState::Failed, true), NOTHING);
        assert_eq!(NOTHING.with(JobState::Skipped, false), NOTHING);
        assert_eq!(FAILURE.with(JobState::Completed, true), FAILURE);
        assert_eq!(FAILURE.with(JobState::Cancelled, true), FAILURE.and(CANCELLATION));
    }

    #[test]
    fn a_run_ends_as_the_worst_that_happened() {
        assert_eq!(end_of_run(false, 0, 0), RunState::Completed);
        assert_eq!(end_of_run(false, 1, 2), RunState::Failed);
        assert_eq!(end_of_run(false, 0, 1), RunState::Cancelled);
        assert_eq!(end_of_run(true, 1, 0), RunState::Cancelled);
    }

    #[test]
    fn a_pinned_job_goes_where_its_workspace_is() {
        let (here, there) = (WorkerId("here".to_owned()), WorkerId("there".to_owned()));
        let own = executr_spec::Requirements::default().class();
        assert_eq!(pinned_class(&own, None, None), own);
        assert_eq!(pinned_class(&own, Some(&here), None), own.on_worker(Some(&here)));
        assert_eq!(pinned_class(&own, Some(&here), Some(&here)), own);
        assert_eq!(pinned_class(&own, Some(&here), Some(&there)), own.on_worker(Some(&here)));
        assert_eq!(pinned_class(&own.on_worker(Some(&here)), None, None), own);
    }
}
