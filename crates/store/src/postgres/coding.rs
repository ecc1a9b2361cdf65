//! How the contract's values stand in columns.

use executr_api::{AttemptStatus, JobState};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::fault::Fault;
use crate::StoreError;

/// The states that were there first, by their numbers.
const STATES: [JobState; 9] = [
    JobState::Scheduled,
    JobState::Blocked,
    JobState::Ready,
    JobState::Running,
    JobState::Cancelling,
    JobState::Completed,
    JobState::Failed,
    JobState::Cancelled,
    JobState::Skipped,
];
/// Below 5 a state is not final.
const WAITING: i16 = -1;

/// The number of a state: below 5 it is not final.
pub(super) fn state_code(state: JobState) -> i16 {
    match state {
        JobState::Waiting => WAITING,
        JobState::Scheduled => 0,
        JobState::Blocked => 1,
        JobState::Ready => 2,
        JobState::Running => 3,
        JobState::Cancelling => 4,
        JobState::Completed => 5,
        JobState::Failed => 6,
        JobState::Cancelled => 7,
        JobState::Skipped => 8,
    }
}

/// The state with this number.
pub(super) fn state(code: i16) -> Result<JobState, Fault> {
    if code == WAITING {
        return Ok(JobState::Waiting);
    }
    usize::try_from(code)
        .ok()
        .and_then(|index| STATES.get(index).copied())
        .ok_or_else(|| damaged(format!("a job's state {code}")))
}

const STATUSES: [AttemptStatus; 6] = [
    AttemptStatus::Running,
    AttemptStatus::Completed,
    AttemptStatus::Failed,
    AttemptStatus::Cancelled,
    AttemptStatus::Lost,
    AttemptStatus::Returned,
];

/// The number of a status. 1 to 3 brought a result.
pub(super) fn status_code(status: AttemptStatus) -> i16 {
    match status {
        AttemptStatus::Running => 0,
        AttemptStatus::Completed => 1,
        AttemptStatus::Failed => 2,
        AttemptStatus::Cancelled => 3,
        AttemptStatus::Lost => 4,
        AttemptStatus::Returned => 5,
    }
}

/// The status with this number.
pub(super) fn status(code: i16) -> Result<AttemptStatus, Fault> {
    usize::try_from(code)
        .ok()
        .and_then(|index| STATUSES.get(index).copied())
        .ok_or_else(|| damaged(format!("an attempt's status {code}")))
}

/// What is written as JSON.
pub(super) fn json<T: Serialize>(value: &T) -> Result<String, Fault> {
    serde_json::to_string(value).map_err(|error| StoreError::Database(error.to_string()).into())
}

/// What was written as JSON.
pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, Fault> {
    serde_json::from_str(text).map_err(|error| damaged(format!("`{text}`: {error}")))
}

/// A name that was valid when it was written.
pub(super) fn name<T: std::str::FromStr>(text: &str) -> Result<T, Fault> {
    text.parse().map_err(|_| damaged(format!("the name `{text}`")))
}

/// Something that should not be in the database.
pub(super) fn damaged(what: String) -> Fault {
    StoreError::Database(format!("it holds what this version does not understand: {what}")).into()
}

/// Text from outside as PostgreSQL can hold it: without NUL.
pub(super) fn text(from: &str) -> String {
    if from.contains('\0') { from.replace('\0', "\u{fffd}") } else { from.to_owned() }
}

/// A number that is never negative as the database's signed one.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Likewise back.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Likewise for the smaller ones.
pub(super) fn small(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_read_back() {
        for value in JobState::ALL {
            assert_eq!(state(state_code(value)).expect("a state"), value);
            assert_eq!(state_code(value) >= 5, value.is_final(), "SQL relies on it");
        }
        for value in STATUSES {
            assert_eq!(status(status_code(value)).expect("a status"), value);
        }
        assert!(state(9).is_err() && state(-2).is_err() && status(6).is_err());
    }
}
