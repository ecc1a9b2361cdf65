//! The fields `stdout` and `stderr` of a job.

use std::collections::VecDeque;
use std::sync::Arc;

use executr_api::ApiError;
use executr_api::output::{Record, Stream};
use executr_spec::JobId;
use executr_store::AttemptRecord;
use tokio::sync::Semaphore;

use super::SLICE;
use super::shorten::Shortener;
use crate::core::Core;
use crate::lock::Lock;
use crate::refusal;

/// So many long outputs are remembered shortened.
const REMEMBERED: usize = 8;
/// So many long outputs are read through at a time.
const READERS: usize = 4;

/// Both fields.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A job and the number of an attempt.
type Key = (JobId, u32);

/// Long outputs of ended attempts that were read through lately: they don't change any more.
#[derive(Debug)]
pub(crate) struct Shortened {
    remembered: Lock<VecDeque<(Key, Arc<Fields>)>>,
    readers: Semaphore,
}

impl Default for Shortened {
    fn default() -> Self {
        Self { remembered: Lock::default(), readers: Semaphore::new(READERS) }
    }
}

impl Shortened {
    fn get(&self, key: Key) -> Option<Fields> {
        let remembered = self.remembered.hold();
        remembered.iter().find(|(of, _)| *of == key).map(|(_, fields)| Fields::clone(fields))
    }

    fn put(&self, key: Key, fields: &Fields) {
        let mut remembered = self.remembered.hold();
        if remembered.len() >= REMEMBERED {
            remembered.pop_front();
        }
        remembered.push_back((key, Arc::new(fields.clone())));
    }
}

impl Core {
    /// Reads an attempt's output through, keeping only what is shown.
    pub(crate) async fn output_fields(&self, attempt: &AttemptRecord) -> Result<Fields, ApiError> {
        let ended = attempt.ended_at.is_some();
        if ended && attempt.output_bytes == 0 {
            return Ok(Fields::default());
        }
        let (job, number) = (attempt.fence.job, attempt.fence.attempt);
        let key = (job, number);
        if let Some(fields) = self.shortened.get(key) {
            return Ok(fields);
        }
        let most = usize::try_from(self.options.max_output_size).unwrap_or(usize::MAX);
        let (mut stdout, mut stderr) = (Shortener::new(most), Shortener::new(most));
        let mut offset = 0;
        let mut reader = None;
        loop {
            let slice = self.store.output(job, number, offset, SLICE).await.map_err(refusal::store)?;
            let Some(slice) = slice else { break };
            let span = slice.records.span();
            for record in slice.records.iter() {
                match record {
                    Record::Data { stream: Stream::Stdout, bytes } => stdout.push(&bytes),
                    Record::Data { stream: _, bytes } => stderr.push(&bytes),
                    Record::Gap(skipped) => {
                        stdout.gap(skipped);
                        stderr.gap(skipped);
                    }
                }
            }
            offset += span;
            // A job that writes faster than this reads is shown as it was when its end was reached first.
            if span == 0 || offset >= slice.end {
                break;
            }
            if reader.is_none() {
                reader = self.shortened.readers.acquire().await.ok();
            }
        }
        let fields = Fields { stdout: stdout.finish(), stderr: stderr.finish() };
        if ended && offset > SLICE as u64 {
            self.shortened.put(key, &fields);
        }
        Ok(fields)
    }
}
