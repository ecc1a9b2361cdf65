//! Output as a stream: from any position, live, across attempts.

use std::sync::Arc;
use std::time::Duration;

use executr_api::output::OutputChunk;
use executr_api::{ApiError, ErrorCode, OutputEvent, OutputFollow, OutputStream};
use executr_spec::JobId;
use futures_util::{StreamExt as _, stream};
use tokio::time::timeout;

use super::SLICE;
use crate::core::Core;
use crate::refusal;
use crate::watches::Watch;

/// The store is looked at this often at least, should a signal from elsewhere have been lost.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Where a reader stands. Nothing is read ahead: a slow reader holds one slice.
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
    ended: bool,
}

/// A job's output.
pub(crate) async fn follow(core: &Arc<Core>, job: JobId, asked: OutputFollow) -> Result<OutputStream, ApiError> {
    let watch = core.watches.watch(job);
    let record = core.record_of(job).await?;
    if let Some(attempt) = asked.attempt
        && (attempt == 0 || attempt > record.attempt)
    {
        let text = format!("job {job} has no attempt {attempt}; its last is {}", record.attempt);
        return Err(ApiError::new(ErrorCode::NotFound, text).with("attempt", attempt));
    }
    let follower = Follower {
        core: Arc::clone(core),
        job,
        watch,
        follow: asked.follow,
        only: asked.attempt.is_some(),
        attempt: asked.attempt.unwrap_or(record.attempt),
        announced: false,
        offset: asked.offset,
        ended: false,
    };
    Ok(stream::try_unfold(
        follower,
        |mut follower| async move { Ok(follower.next().await?.map(|event| (event, follower))) },
    )
    .boxed())
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
            let slice = self.core.store.output(self.job, self.attempt, self.offset, SLICE).await;
            let slice = slice.map_err(refusal::store)?.ok_or_else(|| refusal::no_job(self.job))?;
            if !slice.records.is_empty() {
                let chunk = OutputChunk { offset: self.offset, records: slice.records };
                self.offset = chunk.end();
                return Ok(Some(OutputEvent::Chunk(chunk)));
            }
            if slice.sealed || !self.follow {
                // Read after the end of the attempt, so what it says of a next one is no older.
                let job = self.core.record_of(self.job).await?;
                if self.follow && !self.only && job.attempt > self.attempt {
                    (self.attempt, self.offset, self.announced) = (self.attempt + 1, 0, false);
                    continue;
                }
                if !self.follow || self.only || job.state.is_final() {
                    return Ok(Some(self.end(job.state.status())));
                }
            }
            self.wait().await?;
        }
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
