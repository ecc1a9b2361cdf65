//! How jobs move from one state to another, whatever the reason.

use executr_api::JobState;
use rusqlite::params;

use super::error::damaged;
use super::index::{BucketId, ReadyCount};
use super::row::state_code;
use super::writer::Writer;
use crate::StoreError;

impl Writer<'_> {
    /// Counts a job that goes from one state to another. Its rows are the caller's.
    pub(super) fn step(&mut self, bucket: BucketId, seq: i64, from: JobState, to: JobState) -> Result<(), StoreError> {
        self.index.step(bucket, Some(from), Some(to))?;
        self.runs.step(seq, to)
    }

    /// Makes a job ready, or blocked when its key is taken. It holds no permit before.
    pub(super) fn make_ready(&mut self, seq: i64, from: JobState, readied: &mut ReadyCount) -> Result<(), StoreError> {
        let job =
            self.find("SELECT bucket, concurrency_key, concurrency_limit FROM job WHERE seq = ?1", [seq], |row| {
                Ok((BucketId(row.get(0)?), row.get::<_, Option<String>>(1)?, row.get::<_, Option<u32>>(2)?))
            })?;
        let (bucket, concurrency_key, limit) = job.ok_or_else(|| damaged(format_args!("no job {seq}")))?;
        let key = self.index.key(bucket)?;
        let blocked_by = match concurrency_key {
            Some(own) if !self.take_permit(&key.tenant, &own, limit.unwrap_or(1))? => Some(own),
            _ => None,
        };
        let state = if blocked_by.is_some() { JobState::Blocked } else { JobState::Ready };
        let bucket = if blocked_by.is_some() { bucket } else { self.bucket_to_enter(seq, bucket, from, None)? };
        self.execute("UPDATE job SET state = ?2, due_at = NULL WHERE seq = ?1", params![seq, state_code(state)])?;
        self.step(bucket, seq, from, state)?;
        if let Some(own) = blocked_by {
            self.block(&key.tenant, &own, key.priority, seq)
        } else {
            readied.add(bucket);
            self.enter_ready(bucket, seq)
        }
    }

    /// A job that no worker has leaves where its state has it stand.
    pub(super) fn leave_pending(&mut self, seq: i64, bucket: BucketId, from: JobState) -> Result<(), StoreError> {
        match from {
            JobState::Waiting => Ok(()),
            JobState::Ready => self.leave_ready(bucket, seq),
            JobState::Scheduled => self
                .execute("DELETE FROM due WHERE due_at = (SELECT due_at FROM job WHERE seq = ?1) AND seq = ?1", [seq])
                .map(drop),
            JobState::Blocked => {
                let own: Option<Option<String>> =
                    self.find("SELECT concurrency_key FROM job WHERE seq = ?1", [seq], |row| row.get(0))?;
                let own = own.flatten().ok_or_else(|| damaged(format_args!("a key of job {seq} that is gone")))?;
                let key = self.index.key(bucket)?;
                self.unblock(&key.tenant, &own, key.priority, seq)
            }
            _ => Err(damaged(format_args!("a waiting job that is {from}"))),
        }
    }
}
