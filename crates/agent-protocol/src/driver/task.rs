//! One task, from its start to its end.

use std::time::Duration;

use tokio::time::Instant;

use super::keeper::unexpected;
use super::{Event, Keeper, KeeperError};
use crate::v1::{EndTask, Ping, SignalTask, from_agent, to_agent};

/// How long after a task's grace the keeper may say nothing before it is asked whether it answers.
const QUIET: Duration = Duration::from_secs(3);
/// How long it may take to answer that.
const ANSWER: Duration = Duration::from_secs(2);

/// A started task. Dropped before its end, the task is ended at once, and the keeper is free for the next one.
#[derive(Debug)]
#[must_use = "a task is ended when this is dropped"]
pub struct Task<'keeper> {
    keeper: &'keeper mut Keeper,
    id: u64,
    /// Since it was told to end: until when the keeper has to say something. A job can stop its keeper.
    heard_by: Option<HeardBy>,
}

#[derive(Clone, Copy, Debug)]
struct HeardBy {
    at: Instant,
    /// It was asked already.
    asked: bool,
}

impl<'keeper> Task<'keeper> {
    pub(super) fn new(keeper: &'keeper mut Keeper, id: u64) -> Self {
        Self { keeper, id, heard_by: None }
    }

    /// The next thing that happens; `None` after the end. Dropping the future loses nothing, so this can stand
    /// in a `select!`. The job stalls while nobody asks and the buffers are full.
    ///
    /// # Errors
    /// When the keeper is gone, can't be understood, or was told to end the task and doesn't answer any more.
    pub async fn next(&mut self) -> Result<Option<Event>, KeeperError> {
        if self.keeper.current != Some(self.id) {
            return Ok(None);
        }
        loop {
            let message = self.hear().await?;
            return Ok(Some(match message {
                from_agent::Message::Started(started) if started.task_id == self.id => {
                    Event::Started { pid: started.pid }
                }
                from_agent::Message::Output(output) if output.task_id == self.id => output.try_into()?,
                from_agent::Message::Ended(ended) if ended.task_id == self.id => {
                    self.keeper.current = None;
                    ended.try_into()?
                }
                from_agent::Message::StartFailed(failed) if failed.task_id == self.id => {
                    self.keeper.current = None;
                    failed.try_into()?
                }
                // Answers whose questioner stopped listening.
                from_agent::Message::Pong(_) | from_agent::Message::DirectoryRemoved(_) => continue,
                other => return Err(unexpected(&other)),
            }));
        }
    }

    /// The next message, for which a task that was told to end doesn't wait for ever.
    async fn hear(&mut self) -> Result<from_agent::Message, KeeperError> {
        loop {
            let Some(heard_by) = self.heard_by else { return self.keeper.next_message().await };
            match tokio::time::timeout_at(heard_by.at, self.keeper.next_message()).await {
                Ok(message) => {
                    // It lives, and may have to wait for processes the kernel can't end yet.
                    let at = heard_by.at.max(Instant::now() + QUIET);
                    self.heard_by = Some(HeardBy { at, asked: false });
                    return message;
                }
                Err(_) if heard_by.asked => {
                    self.keeper.kill()?;
                    return Err(KeeperError::Silent);
                }
                Err(_) => {
                    self.keeper.wire.queue(to_agent::Message::Ping(Ping { nonce: 0 })).map_err(KeeperError::TooLong)?;
                    // A socket that is full says as much as no answer.
                    let _ = self.keeper.wire.try_flush();
                    self.heard_by = Some(HeardBy { at: Instant::now() + ANSWER, asked: true });
                }
            }
        }
    }

    /// Ends the task: SIGTERM to its whole tree, SIGKILL to what is left after `grace`; with a grace of zero
    /// SIGKILL at once. Its `Ended` then comes by [`Task::next`]. Harmless after the end.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub async fn end(&mut self, grace: Duration) -> Result<(), KeeperError> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let at = Instant::now().checked_add(grace.saturating_add(QUIET));
        self.heard_by = match (self.heard_by, at) {
            (Some(before), Some(at)) if before.at <= at => Some(before),
            (before, None) => before,
            (_, Some(at)) => Some(HeardBy { at, asked: false }),
        };
        self.say(to_agent::Message::EndTask(EndTask { task_id: self.id, grace_ms })).await
    }

    /// Sends a signal, by its number, to the process group of the task's first process. Harmless after the end.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub async fn signal(&mut self, signal: u32) -> Result<(), KeeperError> {
        self.say(to_agent::Message::SignalTask(SignalTask { task_id: self.id, signal })).await
    }

    /// Ends the task at once and reads until its end, dropping what comes.
    pub(super) async fn finish(mut self) -> Result<(), KeeperError> {
        self.end(Duration::ZERO).await?;
        while self.next().await?.is_some() {}
        Ok(())
    }

    async fn say(&mut self, message: to_agent::Message) -> Result<(), KeeperError> {
        if self.keeper.current != Some(self.id) {
            return Ok(());
        }
        self.keeper.wire.queue(message).map_err(KeeperError::TooLong)?;
        self.keeper.flush().await
    }
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        if self.keeper.current == Some(self.id) {
            let end = EndTask { task_id: self.id, grace_ms: 0 };
            // If it can't be said now, the next start says it; if the keeper is gone, so is the task.
            if self.keeper.wire.queue(to_agent::Message::EndTask(end)).is_ok() {
                let _ = self.keeper.wire.try_flush();
            }
        }
    }
}
