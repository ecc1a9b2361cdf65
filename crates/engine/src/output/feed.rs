//! Appends output to the coordinator while the job runs.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use executr_api::output::{OutputChunk, Stream};
use executr_api::{ApiError, ErrorCode, Fence, RetryDelay, WorkerApi};
use tokio::time::Instant;

use super::log::OutputLog;
use super::{OutputOptions, Tail};

type Append = Pin<Box<dyn Future<Output = Result<u64, ApiError>> + Send>>;

/// One attempt's output on its way. Driven by [`work`](Self::work), beside whatever else its owner waits for.
pub struct OutputFeed {
    api: Arc<dyn WorkerApi>,
    fence: Fence,
    token: Arc<str>,
    inline: usize,
    gather: Duration,
    log: OutputLog,
    /// The chunk that is being appended.
    sending: Option<(OutputChunk, Append)>,
    /// When what gathers is to be sent.
    due: Option<Instant>,
    /// When to try again, after the coordinator couldn't be reached.
    retry: Option<Instant>,
    delay: RetryDelay,
    /// The coordinator takes no more.
    refused: bool,
}

/// What is left to do with an attempt's output when the attempt has ended.
#[derive(Debug)]
pub struct FinishedOutput {
    /// What travels with the result.
    pub inline: Option<OutputChunk>,
    /// What is to be appended before the result is reported, because the coordinator couldn't be reached.
    pub tail: Option<Tail>,
    /// How many bytes were written in all.
    pub total: u64,
}

impl OutputFeed {
    /// A feed for the attempt `fence`, whose output `token` opens.
    #[must_use]
    pub fn new(api: Arc<dyn WorkerApi>, fence: Fence, token: Arc<str>, options: &OutputOptions) -> Self {
        Self {
            api,
            fence,
            token,
            inline: options.inline,
            gather: options.gather,
            log: OutputLog::new(options),
            sending: None,
            due: None,
            retry: None,
            delay: RetryDelay::default(),
            refused: false,
        }
    }

    /// Takes what was written next. Never waits.
    pub fn push(&mut self, stream: Stream, bytes: &Bytes) {
        self.log.push(stream, bytes);
        if self.due.is_none() && self.log.is_gathering() {
            self.due = Some(Instant::now() + self.gather);
        }
    }

    /// Goes on appending; returns now and then, and never while there is nothing to do. May be dropped at any time and
    /// asked again without loss.
    pub async fn work(&mut self) {
        if let Some((_, append)) = &mut self.sending {
            let answer = append.await;
            if let Some((chunk, _)) = self.sending.take() {
                self.answered(answer, chunk);
            }
            return;
        }
        if self.refused {
            return std::future::pending().await;
        }
        if let Some(retry) = self.retry {
            tokio::time::sleep_until(retry).await;
            self.retry = None;
        }
        if self.send_next() {
            return;
        }
        match self.due {
            Some(due) if self.log.is_gathering() => {
                tokio::time::sleep_until(due).await;
                self.due = None;
                self.log.cut();
            }
            // It was cut when it was large enough; what comes next is due anew.
            Some(_) => self.due = None,
            None => std::future::pending().await,
        }
    }

    /// Nothing more is written: sends what is too much to travel with the result, as far as the coordinator can be
    /// reached.
    pub async fn finish(mut self) -> FinishedOutput {
        self.log.end();
        let total = self.log.total();
        loop {
            if self.refused {
                return FinishedOutput { inline: None, tail: None, total };
            }
            if self.sending.is_none() {
                if self.log.encoded_len() <= self.inline {
                    return FinishedOutput { inline: self.log.remaining(), tail: None, total };
                }
                if self.delay.is_failing() {
                    return FinishedOutput { inline: None, tail: Some(Tail::new(self.log)), total };
                }
            }
            self.work().await;
        }
    }

    /// Starts appending the next segment; whether there is one.
    fn send_next(&mut self) -> bool {
        let Some(chunk) = self.log.next() else { return false };
        let (api, fence, token, sent) = (Arc::clone(&self.api), self.fence, Arc::clone(&self.token), chunk.clone());
        let append = Box::pin(async move { api.append_output(&fence, &token, sent).await });
        self.sending = Some((chunk, append));
        true
    }

    fn answered(&mut self, answer: Result<u64, ApiError>, chunk: OutputChunk) {
        match settle(&mut self.log, answer, chunk) {
            Settled::Taken => self.delay.reset(),
            Settled::Refused(error) => {
                tracing::warn!(job = %self.fence.job, attempt = self.fence.attempt, %error, "the server takes no more output");
                self.refused = true;
            }
            Settled::Later(error) => {
                let delay = self.delay.next_delay();
                tracing::debug!(job = %self.fence.job, %error, ?delay, "output waits: the server can't take it now");
                self.retry = Some(Instant::now() + delay);
            }
        }
    }
}

/// What an answer to an append means.
pub(super) enum Settled {
    /// Go on with the next.
    Taken,
    /// The coordinator will never take it.
    Refused(ApiError),
    /// The coordinator can't take it now.
    Later(ApiError),
}

/// Notes in `log` what the answer to appending `chunk` says.
pub(super) fn settle(log: &mut OutputLog, answer: Result<u64, ApiError>, chunk: OutputChunk) -> Settled {
    match answer {
        // An end before this chunk's start, though nobody complained, would never get further.
        Ok(end) if end > chunk.offset => {
            log.take_until(end, chunk);
            Settled::Taken
        }
        Ok(_) => Settled::Later(ApiError::new(ErrorCode::Internal, "the server took none of the output it was sent")),
        Err(error) => match error.code {
            ErrorCode::OutputGap => match error.context.get("end").and_then(|end| end.parse().ok()) {
                Some(end) => {
                    log.go_back(end);
                    Settled::Taken
                }
                None => Settled::Refused(error),
            },
            // Output is opened by the job's own token, which is good as long as its lease: refused, the lease is over.
            ErrorCode::LeaseLost
            | ErrorCode::Unauthorized
            | ErrorCode::Forbidden
            | ErrorCode::NotFound
            | ErrorCode::BadRequest
            | ErrorCode::TooLarge
            | ErrorCode::Conflict => Settled::Refused(error),
            // Somebody has to mend a version; the output keeps until then.
            _ => Settled::Later(error),
        },
    }
}
