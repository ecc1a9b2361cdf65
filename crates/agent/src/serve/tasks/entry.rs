//! One task as its callers and its runner share it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use executr_agent_protocol::v1::task_response::Message;
use executr_agent_protocol::v1::{Received, StartTask, StartTaskRequest, Taken, TaskLog, TaskState, TaskSummary};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tonic::Status;

use super::story::Story;

/// What a caller wants of a task.
#[derive(Debug)]
pub(super) enum Order {
    /// Bytes for standard input, and whether they are the last.
    Input(bytes::Bytes, bool),
    Resize(u32, u32),
    Signal(u32),
    End(Duration),
}

/// A task. What is said to it goes by a channel to whoever runs it, what it tells is kept here for who follows it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) argv: Vec<bytes::Bytes>,
    pub(super) patience: Duration,
    acknowledges: bool,
    orders: mpsc::UnboundedSender<Order>,
    /// Something changed that its runner waits for: room, a caller who came or went.
    pub(super) to_runner: Notify,
    /// Input was taken.
    pub(super) to_pump: Notify,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    story: Story,
    /// Where the caller who follows it is; all before was given to it.
    cursor: u64,
    /// Counts callers: only the last one follows.
    reader: u64,
    follower: Option<Follower>,
    /// What the caller said that was taken, and whether it was told.
    taken: Taken,
    taken_told: bool,
    /// Bytes of standard input received.
    input: u64,
    logs: u64,
    /// Since when nobody follows it.
    away_since: Option<Instant>,
    pid: u32,
    has_result: bool,
    /// Its result was received: nobody will ask any more.
    is_forgotten: bool,
    /// Nobody came for too long.
    is_given_up: bool,
    /// The agent ends: nobody is waited for.
    is_abandoned: bool,
    /// What the caller said has no meaning: told it, and it is sent away.
    refusal: Option<Status>,
}

#[derive(Debug, Default)]
struct Follower {
    waker: Option<Waker>,
    /// It says nothing more.
    half_closed: bool,
}

/// What a runner has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) is_full: bool,
    pub(super) is_followed: bool,
    pub(super) is_abandoned: bool,
    pub(super) is_forgotten: bool,
}

impl Entry {
    /// A task that a first caller follows, and what its runner listens to.
    pub(super) fn new(start: &StartTaskRequest, task: &StartTask) -> (Self, mpsc::UnboundedReceiver<Order>) {
        let (orders, ordered) = mpsc::unbounded_channel();
        let is_named = !start.task_id.is_empty();
        let entry = Self {
            id: start.task_id.clone(),
            argv: task.argv.clone(),
            patience: if is_named { Duration::from_millis(start.patience_ms) } else { Duration::ZERO },
            acknowledges: start.acknowledges && is_named,
            orders,
            to_runner: Notify::new(),
            to_pump: Notify::new(),
            inner: Mutex::new(Inner { follower: Some(Follower::default()), taken_told: true, ..Inner::default() }),
        };
        (entry, ordered)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // What its runner does.

    /// Adds to what callers learn.
    pub(super) fn tell(&self, message: Message) {
        let mut inner = self.inner();
        match &message {
            Message::Started(started) => inner.pid = started.pid,
            Message::Result(_) => inner.has_result = true,
            _ => {}
        }
        let cursor = inner.cursor;
        inner.story.push(message, cursor);
        inner.wake();
    }

    pub(super) fn input_taken(&self, offset: u64) {
        let mut inner = self.inner();
        if offset <= inner.taken.input {
            return;
        }
        inner.taken.input = offset;
        inner.taken_told = false;
        inner.wake();
        self.to_pump.notify_one();
    }

    /// Nobody reads standard input any more.
    pub(super) fn input_over(&self) {
        let received = self.inner().input;
        self.input_taken(received);
    }

    pub(super) fn standing(&self) -> Standing {
        let inner = self.inner();
        Standing {
            is_full: inner.story.is_full(),
            is_followed: inner.follower.is_some() && !inner.is_abandoned,
            is_abandoned: inner.is_abandoned,
            is_forgotten: inner.is_forgotten,
        }
    }

    /// Nobody came for too long; whoever comes yet is told so.
    pub(super) fn give_up(&self) {
        let mut inner = self.inner();
        inner.is_given_up = true;
        inner.wake();
    }

    /// Nobody is waited for any more.
    pub(super) fn abandon(&self) {
        self.inner().is_abandoned = true;
        self.to_runner.notify_one();
    }

    // What callers do.

    /// A caller comes, who has received this much; any other is sent away. Its number.
    pub(super) fn attach(&self, received: &Received) -> Result<(u64, Taken), Status> {
        let mut inner = self.inner();
        if inner.is_given_up {
            return Err(away(self.patience));
        }
        inner.wake();
        inner.story.acknowledge(received);
        inner.cursor = inner.story.first();
        inner.reader += 1;
        inner.follower = Some(Follower::default());
        inner.taken_told = true;
        if let Some(since) = inner.away_since.take() {
            inner.log(format!("nobody followed the task for {:.1} s", since.elapsed().as_secs_f64()));
        }
        self.to_runner.notify_one();
        Ok((inner.reader, inner.taken))
    }

    /// The caller with this number has gone.
    pub(super) fn detach(&self, reader: u64) {
        let mut inner = self.inner();
        if inner.reader == reader {
            inner.follower = None;
            inner.away_since = Some(Instant::now());
            self.to_runner.notify_one();
        }
    }

    /// The caller with this number says nothing more.
    pub(super) fn half_close(&self, reader: u64) {
        let mut inner = self.inner();
        if inner.reader == reader {
            inner.wake();
            if let Some(follower) = &mut inner.follower {
                follower.half_closed = true;
            }
        }
    }

    /// The caller with this number said something without meaning.
    pub(super) fn refuse(&self, reader: u64, status: Status) {
        let mut inner = self.inner();
        if inner.reader == reader {
            inner.refusal = Some(status);
            inner.wake();
        }
    }

    pub(super) fn acknowledge(&self, received: &Received) {
        let mut inner = self.inner();
        let was_full = inner.story.is_full();
        inner.story.acknowledge(received);
        inner.cursor = inner.cursor.max(inner.story.first());
        inner.is_forgotten |= received.result && inner.has_result;
        inner.wake();
        if was_full || inner.is_forgotten {
            self.to_runner.notify_one();
        }
    }

    /// Takes bytes of standard input, dropping those that were here before.
    pub(super) fn input(&self, offset: u64, mut data: bytes::Bytes, last: bool) -> Result<(), Status> {
        let mut inner = self.inner();
        let Some(known) = inner.input.checked_sub(offset) else {
            return Err(Status::invalid_argument(format!(
                "standard input from byte {offset}, but the last one was {}; send what lies between",
                inner.input
            )));
        };
        // No more than its length, which is one of memory.
        drop(data.split_to(known.min(data.len() as u64) as usize));
        inner.input += data.len() as u64;
        if !data.is_empty() || last {
            self.order(Order::Input(data, last));
        }
        Ok(())
    }

    /// Bytes of standard input that wait.
    pub(super) fn input_waiting(&self) -> u64 {
        let inner = self.inner();
        inner.input.saturating_sub(inner.taken.input)
    }

    /// An order that counts itself, unless it was here before.
    pub(super) fn numbered(&self, number: u64, order: Order) {
        {
            let mut inner = self.inner();
            if number != 0 && number <= inner.taken.number {
                return;
            }
            inner.taken.number = inner.taken.number.max(number);
            inner.taken_told = false;
            inner.wake();
        }
        self.order(order);
    }

    pub(super) fn order(&self, order: Order) {
        // Nobody listens when it is over.
        let _ = self.orders.send(order);
    }

    /// What the caller with this number learns next; `None` when that was all.
    pub(super) fn poll(&self, reader: u64, context: &Context<'_>) -> Poll<Option<Result<Message, Status>>> {
        let mut inner = self.inner();
        if inner.reader != reader {
            return Poll::Ready(Some(Err(Status::aborted("another caller follows this task now"))));
        }
        if let Some(status) = inner.refusal.take() {
            return Poll::Ready(Some(Err(status)));
        }
        let cursor = inner.cursor;
        if let Some(message) = inner.story.get(cursor).cloned() {
            inner.cursor += 1;
            if !self.acknowledges {
                let was_full = inner.story.is_full();
                inner.story.forget_before(cursor + 1);
                inner.is_forgotten |= matches!(message, Message::Result(_));
                if was_full || inner.is_forgotten {
                    self.to_runner.notify_one();
                }
            }
            return Poll::Ready(Some(Ok(message)));
        }
        if !inner.taken_told {
            inner.taken_told = true;
            return Poll::Ready(Some(Ok(Message::Taken(inner.taken))));
        }
        if inner.is_given_up {
            return Poll::Ready(Some(Err(away(self.patience))));
        }
        let half_closed = inner.follower.as_ref().is_some_and(|follower| follower.half_closed);
        if inner.is_forgotten || (inner.has_result && half_closed) {
            return Poll::Ready(None);
        }
        if let Some(follower) = &mut inner.follower {
            follower.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }

    pub(super) fn summary(&self) -> TaskSummary {
        let inner = self.inner();
        let state = match (inner.has_result, inner.pid) {
            (true, _) => TaskState::Ended,
            (false, 0) => TaskState::Starting,
            (false, _) => TaskState::Running,
        };
        TaskSummary {
            task_id: self.id.clone(),
            state: state.into(),
            argv: self.argv.clone(),
            pid: inner.pid,
            attached: inner.follower.is_some(),
        }
    }
}

impl Inner {
    /// Adds a sentence about the task.
    fn log(&mut self, text: String) {
        self.logs += 1;
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let log = TaskLog { sequence: self.logs, time_ms, text };
        let cursor = self.cursor;
        self.story.push(Message::Log(log), cursor);
    }

    fn wake(&mut self) {
        if let Some(waker) = self.follower.as_mut().and_then(|follower| follower.waker.take()) {
            waker.wake();
        }
    }
}

/// What a caller is told who comes too late.
pub(super) fn away(patience: Duration) -> Status {
    Status::aborted(format!(
        "nobody followed the task for {} s, so it was ended; start it again, with more patience if need be",
        patience.as_secs_f64()
    ))
}
