//! Output as a stream: from any position, live, across attempts.

use std::sync::Arc;
use std::time::Duration;

use executr_api::output::OutputChunk;
use executr_api::{ApiError, ErrorCode, OutputEvent, OutputFollow, OutputStream};
use executr_spec::JobId;
use executr_store::OutputSlice;
use futures_util::{StreamExt as _, stream};
use tokio::time::timeout;

use super::SLICE;
use crate::core::Core;
use crate::driven::driven;
use crate::refusal;
use crate::watches::Watch;

/// The store is looked at this often at least, should a signal from elsewhere have been lost.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Where a reader stands. A slow reader holds a slice, and two that are read ahead.
struct Follower {
    core: Arc<Core>,
    job: JobId,
    watch: Watch,
    follow: bool,
    /// Whether only this attempt was asked for.
    only: bool,
    /// 0 before there is one.
    attempt: u32,
    announced: bool,
    offset: u64,
    /// What a look at the store brought that wasn't used yet.
    read: Option<OutputSlice>,
    /// The attempt has ended and all of its output was read.
    read_through: bool,
    ended: bool,
}

/// A job's output.
pub(crate) async fn follow(core: &Arc<Core>, job: JobId, asked: OutputFollow) -> Result<OutputStream, ApiError> {
    let watch = core.watches.watch(job);
    let mut follower = Follower {
        core: Arc::clone(core),
        job,
        watch,
        follow: asked.follow,
        only: asked.attempt.is_some(),
        attempt: asked.attempt.unwrap_or(0),
        announced: false,
        offset: asked.offset,
        read: None,
        read_through: false,
        ended: false,
    };
    // An attempt that there is tells by its output; any other is looked for.
    if follower.attempt > 0 {
        follower.read = core.store.output(job, follower.attempt, asked.offset, SLICE).await.map_err(refusal::store)?;
    }
    if follower.read.is_none() {
        let record = core.record_of(job).await?;
        if let Some(attempt) = asked.attempt
            && (attempt == 0 || attempt > record.attempt)
        {
            let text = format!("job {job} has no attempt {attempt}; its last is {}", record.attempt);
            return Err(ApiError::new(ErrorCode::NotFound, text).with("attempt", attempt));
        }
        follower.attempt = asked.attempt.unwrap_or(record.attempt);
    }
    let events = stream::try_unfold(follower, |mut follower| async move {
        Ok(follower.next().await?.map(|event| (event, follower)))
    });
    Ok(driven(events.boxed()))
}

impl Follower {
    async fn next(&mut self) -> Result<Option<OutputEvent>, ApiError> {
        if self.ended {
            return Ok(None);
        }
        loop {
            if self.attempt == 0 {
                let job = self.core.record_of(self.job).await?;
                self.attempt = job.attempt;
                if self.attempt == 0 {
                    if job.state.is_final() || !self.follow {
                        return Ok(Some(self.end(job.state.status())));
                    }
                    self.wait().await?;
                }
                continue;
            }
            if !std::mem::replace(&mut self.announced, true) {
                return Ok(Some(OutputEvent::Attempt(self.attempt)));
            }
            if !self.read_through {
                let slice = match self.read.take() {
                    Some(slice) => slice,
                    None => self.look().await?,
                };
                let chunk = OutputChunk { offset: self.offset, records: slice.records };
                let end = if chunk.records.is_empty() { self.offset } else { chunk.end() };
                self.read_through = slice.sealed && end >= slice.end;
                if !chunk.records.is_empty() {
                    self.offset = end;
                    return Ok(Some(OutputEvent::Chunk(chunk)));
                }
                // Nothing is left of what was asked for, also when that began behind the end.
                self.read_through = slice.sealed;
            }
            if self.read_through || !self.follow {
                // Read after the end of the attempt, so what it says of a next one is no older.
                let job = self.core.record_of(self.job).await?;
                if self.follow && !self.only && job.attempt > self.attempt {
                    (self.attempt, self.offset) = (self.attempt + 1, 0);
                    (self.announced, self.read_through) = (false, false);
                    continue;
                }
                if !self.follow || self.only || job.state.is_final() {
                    return Ok(Some(self.end(job.state.status())));
                }
            }
            self.wait().await?;
        }
    }

    async fn look(&self) -> Result<OutputSlice, ApiError> {
        let slice = self.core.store.output(self.job, self.attempt, self.offset, SLICE).await;
        slice.map_err(refusal::store)?.ok_or_else(|| refusal::no_job(self.job))
    }

    fn end(&mut self, status: executr_api::JobStatus) -> OutputEvent {
        self.ended = true;
        OutputEvent::End(status)
    }

    async fn wait(&mut self) -> Result<(), ApiError> {
        self.core.refuse_when_stopping()?;
        // Told or not: the store is looked at.
        let _ = timeout(LOOK_EVERY, self.watch.changed_or_output()).await;
        Ok(())
    }
}
