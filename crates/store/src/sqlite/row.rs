//! How values stand in columns.

use executr_api::{AttemptStatus, JobState};
use executr_spec::{Backoff, BackoffKind, Digest, JobId, LeaseId, Span, Timestamp};
use std::time::Duration;
use uuid::Uuid;

use super::error::{damaged, from_sqlite};
use crate::StoreError;

/// The column names of `bucket`, by [`state_code`].
pub(super) const STATES: [JobState; 10] = [
    JobState::Scheduled,
    JobState::Blocked,
    JobState::Ready,
    JobState::Running,
    JobState::Cancelling,
    JobState::Completed,
    JobState::Failed,
    JobState::Cancelled,
    JobState::Waiting,
    JobState::Skipped,
];

/// A state's number; its place in [`STATES`].
pub(super) fn state_code(state: JobState) -> u8 {
    match state {
        JobState::Scheduled => 0,
        JobState::Blocked => 1,
        JobState::Ready => 2,
        JobState::Running => 3,
        JobState::Cancelling => 4,
        JobState::Completed => 5,
        JobState::Failed => 6,
        JobState::Cancelled => 7,
        JobState::Waiting => 8,
        JobState::Skipped => 9,
    }
}

pub(super) fn state(code: u8) -> Result<JobState, StoreError> {
    STATES.get(usize::from(code)).copied().ok_or_else(|| damaged(format_args!("state {code}")))
}

pub(super) fn status_code(status: AttemptStatus) -> u8 {
    match status {
        AttemptStatus::Running => 0,
        AttemptStatus::Completed => 1,
        AttemptStatus::Failed => 2,
        AttemptStatus::Cancelled => 3,
        AttemptStatus::Lost => 4,
        AttemptStatus::Returned => 5,
    }
}

pub(super) fn status(code: u8) -> Result<AttemptStatus, StoreError> {
    Ok(match code {
        1 => AttemptStatus::Completed,
        2 => AttemptStatus::Failed,
        3 => AttemptStatus::Cancelled,
        4 => AttemptStatus::Lost,
        5 => AttemptStatus::Returned,
        other => return Err(damaged(format_args!("attempt status {other}"))),
    })
}

/// Attempts of a job, in the key of `attempt`.
const ATTEMPT_BITS: u32 = 24;

/// The key of an attempt; `None` for a number that no attempt can have.
pub(super) fn attempt_key(seq: i64, attempt: u32) -> Option<i64> {
    (attempt >> ATTEMPT_BITS == 0).then(|| (seq << ATTEMPT_BITS) | i64::from(attempt))
}

/// The first and the last key that attempts of a job can have.
pub(super) fn attempt_keys(seq: i64) -> (i64, i64) {
    (seq << ATTEMPT_BITS, (seq << ATTEMPT_BITS) | ((1 << ATTEMPT_BITS) - 1))
}

/// The attempt's number in a key.
pub(super) fn attempt_number(key: i64) -> u32 {
    // Only the low bits, so it fits.
    (key & ((1 << ATTEMPT_BITS) - 1)) as u32
}

/// An unsigned number in a signed column; beyond 2^63 it stops.
pub(super) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A column that only holds what [`integer`] wrote.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(super) fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn span(micros: i64) -> Duration {
    Duration::from_micros(unsigned(micros))
}

pub(super) fn time(micros: Option<i64>) -> Option<Timestamp> {
    micros.map(Timestamp)
}

pub(super) fn backoff_code(backoff: &Backoff) -> (u8, i64, i64) {
    let kind = match backoff.kind {
        BackoffKind::Exponential => 0,
        BackoffKind::Linear => 1,
        BackoffKind::Constant => 2,
    };
    (kind, micros(backoff.min_time.0), micros(backoff.max_time.0))
}

pub(super) fn backoff(kind: u8, min: i64, max: i64) -> Result<Backoff, StoreError> {
    let kind = match kind {
        0 => BackoffKind::Exponential,
        1 => BackoffKind::Linear,
        2 => BackoffKind::Constant,
        other => return Err(damaged(format_args!("backoff {other}"))),
    };
    Ok(Backoff { kind, min_time: Span(span(min)), max_time: Span(span(max)) })
}

/// A value that stands as JSON in a column.
pub(super) fn json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| damaged(format_args!("{text:?} ({error})")))
}

pub(super) fn to_json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value)
        .map_err(|error| StoreError::Database(format!("a value can't be written as JSON: {error}")))
}

/// A value that stands as its text in a column.
pub(super) fn parsed<T: std::str::FromStr>(text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|_| damaged(format_args!("{text:?}")))
}

pub(super) fn job_id(bytes: [u8; 16]) -> JobId {
    JobId(Uuid::from_bytes(bytes))
}

pub(super) fn lease_id(bytes: [u8; 16]) -> LeaseId {
    LeaseId(Uuid::from_bytes(bytes))
}

pub(super) fn digest(bytes: [u8; 32]) -> Digest {
    Digest(bytes)
}

/// A column of a row that has been fetched.
pub(super) fn get<T: rusqlite::types::FromSql>(row: &rusqlite::Row<'_>, column: usize) -> Result<T, StoreError> {
    row.get(column).map_err(from_sqlite)
}
