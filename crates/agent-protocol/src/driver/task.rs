//! One task, from its start to its end.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::event::Unclear;
use super::keeper::unexpected;
use super::{Event, Keeper, KeeperError};
use crate::keeper::v1::{End, Input, Ping, Resize, Signal, from_keeper, to_keeper};
use crate::v1::{TaskOutput, TaskResult, TaskStarted};

/// How long after a task's grace the keeper may say nothing before it is asked whether it answers.
const QUIET: Duration = Duration::from_secs(3);
/// How long it may take to answer that.
const ANSWER: Duration = Duration::from_secs(2);

/// What a keeper says about a task.
#[derive(Debug)]
pub enum TaskMessage {
    /// As [`Event::Started`].
    Started(TaskStarted),
    /// As [`Event::Output`].
    Output(TaskOutput),
    /// As [`Event::Ended`] or [`Event::StartFailed`].
    Result(TaskResult),
    /// So many bytes of standard input were taken.
    InputTaken(u64),
}

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
        Ok(Some(match self.next_message().await? {
            None => return Ok(None),
            Some(TaskMessage::InputTaken(offset)) => Event::InputTaken { offset },
            Some(TaskMessage::Started(started)) => Event::Started { pid: started.pid },
            Some(TaskMessage::Output(output)) => Event::of_output(output).map_err(KeeperError::Protocol)?,
            Some(TaskMessage::Result(result)) => Event::of_result(result).map_err(|unclear| match unclear {
                Unclear::Lost(problem) => KeeperError::Protocol(problem),
                Unclear::No(problem) => KeeperError::Protocol(problem),
            })?,
        }))
    }

    /// As [`Task::next`], as it came: for who passes it on.
    ///
    /// # Errors
    /// As [`Task::next`].
    pub async fn next_message(&mut self) -> Result<Option<TaskMessage>, KeeperError> {
        if self.keeper.current != Some(self.id) {
            return Ok(None);
        }
        loop {
            return Ok(Some(match self.hear().await? {
                from_keeper::Message::Started(started) if started.task_id == self.id => {
                    TaskMessage::Started(started.started.unwrap_or_default())
                }
                from_keeper::Message::Output(output) if output.task_id == self.id => {
                    TaskMessage::Output(output.output.unwrap_or_default())
                }
                from_keeper::Message::Ended(ended) if ended.task_id == self.id => {
                    self.keeper.current = None;
                    TaskMessage::Result(ended.result.unwrap_or_default())
                }
                from_keeper::Message::InputTaken(taken) if taken.task_id == self.id => {
                    TaskMessage::InputTaken(taken.offset)
                }
                // Answers whose questioner stopped listening.
                from_keeper::Message::Pong(_) | from_keeper::Message::DirectoryRemoved(_) => continue,
                other => return Err(unexpected(&other)),
            }));
        }
    }

    /// The next message, for which a task that was told to end doesn't wait for ever.
    async fn hear(&mut self) -> Result<from_keeper::Message, KeeperError> {
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
                    self.keeper
                        .wire
                        .queue(to_keeper::Message::Ping(Ping { nonce: 0 }))
                        .map_err(KeeperError::TooLong)?;
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
        self.say(to_keeper::Message::End(End { task_id: self.id, grace_ms })).await
    }

    /// Sends a signal, by its number, to every process of the task's tree. Harmless after the end.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub async fn signal(&mut self, signal: u32) -> Result<(), KeeperError> {
        self.say(to_keeper::Message::Signal(Signal { task_id: self.id, signal })).await
    }

    /// Writes to standard input, where the task has one to write to; with `last` nothing comes behind it. No more than 256 KiB
    /// may be on the way that the task hasn't taken. Harmless after the end.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub async fn write_input(&mut self, data: Bytes, last: bool) -> Result<(), KeeperError> {
        self.say(to_keeper::Message::Input(Input { task_id: self.id, data, last })).await
    }

    /// Gives the task's terminal another size. Harmless after the end, and without a terminal.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub async fn resize(&mut self, rows: u32, columns: u32) -> Result<(), KeeperError> {
        self.say(to_keeper::Message::Resize(Resize { task_id: self.id, rows, columns })).await
    }

    /// Ends the task at once and reads until its end, dropping what comes.
    pub(super) async fn finish(mut self) -> Result<(), KeeperError> {
        self.end(Duration::ZERO).await?;
        while self.next().await?.is_some() {}
        Ok(())
    }

    async fn say(&mut self, message: to_keeper::Message) -> Result<(), KeeperError> {
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
            let end = End { task_id: self.id, grace_ms: 0 };
            // If it can't be said now, the next start says it; if the keeper is gone, so is the task.
            if self.keeper.wire.queue(to_keeper::Message::End(end)).is_ok() {
                let _ = self.keeper.wire.try_flush();
            }
        }
    }
}
