//! The rules of a job's life that every store shares, as pure functions. Drawn in `docs/states.md`.
//! Those of the graph of a run are in [`graph`].

pub mod graph;

use std::time::Duration;

use executr_api::{AttemptResult, AttemptStatus, JobState, Outcome};
use executr_spec::Backoff;

/// What follows from a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The job is final.
    Final(JobState),
    /// Another attempt, after so long.
    Retry(Duration),
}

/// How an attempt that ended with `outcome` is recorded.
#[must_use]
pub fn attempt_status(outcome: Outcome, cancelling: bool) -> AttemptStatus {
    match outcome {
        Outcome::Skipped if cancelling => AttemptStatus::Cancelled,
        Outcome::Succeeded | Outcome::Skipped => AttemptStatus::Completed,
        Outcome::Cancelled if cancelling => AttemptStatus::Cancelled,
        Outcome::Failed if cancelling => AttemptStatus::Cancelled,
        Outcome::Failed | Outcome::Cancelled => AttemptStatus::Failed,
    }
}

/// What follows from `result` for a job that had `failures` failed attempts before it.
#[must_use]
pub fn after(result: &AttemptResult, cancelling: bool, failures: u32, max_retries: u32, backoff: &Backoff) -> Next {
    match result.outcome {
        Outcome::Succeeded => Next::Final(JobState::Completed),
        Outcome::Failed | Outcome::Cancelled | Outcome::Skipped if cancelling => Next::Final(JobState::Cancelled),
        Outcome::Skipped => Next::Final(JobState::Skipped),
        Outcome::Failed | Outcome::Cancelled => {
            if result.retryable && failures < max_retries {
                Next::Retry(backoff.delay(failures + 1))
            } else {
                Next::Final(JobState::Failed)
            }
        }
    }
}

/// Whether this end of a job is a failure that its run takes from nobody.
#[must_use]
pub fn fails_run(result: &AttemptResult, next: Next) -> bool {
    result.fails_run && next == Next::Final(JobState::Failed)
}

/// What the error of a job says whose leases were lost too often.
#[must_use]
pub fn lost_too_often(lost: u32) -> String {
    format!("its workers were lost {lost} times; see the attempts, and look for a job that takes its machine down")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use executr_api::Fence;
    use executr_spec::{JobId, LeaseId};
    use uuid::Uuid;

    use super::*;

    fn result(outcome: Outcome, retryable: bool) -> AttemptResult {
        AttemptResult {
            fence: Fence { job: JobId(Uuid::nil()), attempt: 1, lease: LeaseId(Uuid::nil()) },
            outcome,
            exit_code: None,
            error_message: None,
            retryable,
            fails_run: false,
            usage: None,
            steps: vec![],
            output: None,
            output_bytes: 0,
            duration_us: 0,
            outputs: BTreeMap::new(),
            artifacts: Vec::new(),
        }
    }

    #[test]
    fn a_failure_is_repeated_while_retries_are_left_and_it_could_help() {
        let backoff = Backoff::default();
        let after = |outcome, retryable, cancelling, failures| {
            after(&result(outcome, retryable), cancelling, failures, 2, &backoff)
        };
        assert_eq!(after(Outcome::Failed, true, false, 0), Next::Retry(Duration::from_secs(1)));
        assert_eq!(after(Outcome::Failed, true, false, 1), Next::Retry(Duration::from_secs(2)));
        assert_eq!(after(Outcome::Failed, true, false, 2), Next::Final(JobState::Failed));
        assert_eq!(after(Outcome::Failed, false, false, 0), Next::Final(JobState::Failed));
        assert_eq!(after(Outcome::Failed, true, true, 0), Next::Final(JobState::Cancelled));
        assert_eq!(after(Outcome::Succeeded, true, true, 0), Next::Final(JobState::Completed));
    }
}
