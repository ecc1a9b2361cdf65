//! One task of an agent, through any number of cuts.
//!
//! What the caller was given is what counts as received: after a cut the agent is told, and goes on right behind it. What the
//! caller said and the agent hasn't confirmed is said again.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_core::Stream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tonic::{Code, Streaming};

use super::{Agent, AgentError, FIRST_PAUSE, HEAD_START, LONGEST_PAUSE, client};
use crate::INPUT_WINDOW;
use crate::driver::event::Unclear;
use crate::driver::{Event, StartTask};
use crate::v1::task_request::Message as Say;
use crate::v1::task_response::Message as Heard;
use crate::v1::{
    Acknowledge, Attach, Received, StartTaskRequest, Stream as Wire, Taken, TaskEnd, TaskInput, TaskOutput,
    TaskRequest, TaskResize, TaskResponse, TaskSignal,
};

/// Bytes received after which the agent is told.
const TELL: usize = 256 * 1024;

/// Notes kept for the caller; older ones go.
const NOTES: usize = 100;

/// What the agent had to say about a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskNote {
    /// Milliseconds since 1970 by the clock there.
    pub time_ms: u64,
    /// A whole sentence.
    pub text: String,
}

/// A task of an agent. Dropped before its end, it is ended at once, in the background.
#[must_use = "a task is ended when this is dropped"]
pub struct AgentTask(Option<Box<Following>>);

impl AgentTask {
    pub(super) async fn start(agent: Agent, id: String, task: StartTask) -> Result<Self, AgentError> {
        let patience = agent.shared.options.patience;
        let wait = if patience.is_zero() { patience } else { patience.saturating_add(HEAD_START) };
        let start = StartTaskRequest {
            task_id: id.clone(),
            task: Some(task),
            patience_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            acknowledges: true,
        };
        let following = Following {
            agent,
            id,
            start: Some(start),
            was_sent: false,
            open: None,
            cut_since: None,
            seen: Received::default(),
            untold: 0,
            end: None,
            input: Outgoing::default(),
            orders: VecDeque::new(),
            ordered: 0,
            notes: VecDeque::new(),
            over: false,
        };
        // From here on a dropped future ends what may have been started.
        let mut task = Self(Some(Box::new(following)));
        if let Some(following) = &mut task.0 {
            following.reach().await?;
        }
        Ok(task)
    }

    /// The next thing that happens, as with a keeper's task; `None` after the end. A cut is mended on the way, and the future
    /// may be dropped and asked for again without loss. The task stalls while nobody asks and 1 MiB waits.
    ///
    /// # Errors
    /// When the agent, or what ran the task there, is lost.
    pub async fn next(&mut self) -> Result<Option<Event>, AgentError> {
        match &mut self.0 {
            Some(following) => following.next().await,
            None => Ok(None),
        }
    }

    /// Ends the task: SIGTERM to its whole tree, SIGKILL to what is left after `grace`; with a grace of zero SIGKILL at once.
    /// Its `Ended` then comes by [`AgentTask::next`]. Harmless after the end.
    pub fn end(&mut self, grace: Duration) {
        if let Some(following) = &mut self.0 {
            following.end(grace);
        }
    }

    /// Sends a signal, by its number, to every process of the task's tree, once. Harmless after the end.
    pub fn signal(&mut self, signal: u32) {
        if let Some(following) = &mut self.0 {
            following.order(|number| Say::Signal(TaskSignal { number, signal }));
        }
    }

    /// Gives the task's terminal another size. Harmless after the end, and without a terminal.
    pub fn resize(&mut self, rows: u32, columns: u32) {
        if let Some(following) = &mut self.0 {
            following.order(|number| Say::Resize(TaskResize { number, rows, columns }));
        }
    }

    /// Bytes of standard input that may be written now; more is kept here until the task takes it. An
    /// [`Event::InputTaken`] says that there is more room.
    #[must_use]
    pub fn input_room(&self) -> u64 {
        self.0.as_ref().map_or(0, |following| following.input.room())
    }

    /// Writes to standard input, where the task has one to write to. Harmless after the end.
    pub fn write_input(&mut self, data: Bytes) {
        if let Some(following) = &mut self.0 {
            following.input.push(data);
            following.send_input();
        }
    }

    /// Ends standard input.
    pub fn close_input(&mut self) {
        if let Some(following) = &mut self.0 {
            following.input.is_last = true;
            following.send_input();
        }
    }

    /// What the agent had to say about it since this was last asked.
    pub fn take_notes(&mut self) -> Vec<TaskNote> {
        self.0.as_mut().map(|following| following.notes.drain(..).collect()).unwrap_or_default()
    }

    /// Ends the task at once, and waits until nothing of it is left.
    ///
    /// # Errors
    /// When the agent is lost.
    pub async fn finish(mut self) -> Result<(), AgentError> {
        match self.0.take() {
            Some(following) => following.finish().await,
            None => Ok(()),
        }
    }
}

impl Drop for AgentTask {
    fn drop(&mut self) {
        let (Some(following), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) else { return };
        if following.over || !following.was_sent {
            return;
        }
        let shared = Arc::clone(&following.agent.shared);
        shared.ending.fetch_add(1, Ordering::Relaxed);
        runtime.spawn(async move {
            // If the agent is lost, so is the task.
            let _ = following.finish().await;
            shared.ending.fetch_sub(1, Ordering::Relaxed);
            shared.settled.notify_waiters();
        });
    }
}

/// A task that isn't over.
struct Following {
    agent: Agent,
    id: String,
    /// What is to be said again if it never arrived; `None` once something was heard.
    start: Option<StartTaskRequest>,
    /// It may have arrived.
    was_sent: bool,
    open: Option<Open>,
    /// Since when nothing was heard, after a cut.
    cut_since: Option<Instant>,
    seen: Received,
    /// Bytes received that the agent wasn't told of.
    untold: usize,
    /// When the grace is over, once it is to end.
    end: Option<Instant>,
    input: Outgoing,
    /// Signals and resizes that weren't confirmed, by number.
    orders: VecDeque<(u64, Say)>,
    ordered: u64,
    notes: VecDeque<TaskNote>,
    over: bool,
}

/// A stream.
struct Open {
    say: mpsc::UnboundedSender<TaskRequest>,
    heard: Streaming<TaskResponse>,
    /// What isn't numbered away by the start may be said: after a cut only once the agent has told what it has.
    is_attached: bool,
}

impl Open {
    fn say(&self, message: Say) {
        // A stream that is gone is found out by listening.
        let _ = self.say.send(TaskRequest { message: Some(message) });
    }
}

impl Following {
    async fn next(&mut self) -> Result<Option<Event>, AgentError> {
        while !self.over {
            self.reach().await?;
            let Some(open) = &mut self.open else { continue };
            let error = match open.heard.message().await {
                Ok(Some(TaskResponse { message: Some(message) })) => {
                    self.cut_since = None;
                    let heard = self.hear(message);
                    self.over |= heard.is_err();
                    match heard? {
                        Some(event) => return Ok(Some(event)),
                        None => continue,
                    }
                }
                Ok(Some(TaskResponse { message: None })) => {
                    AgentError::Protocol("a message of a kind unknown here".to_owned())
                }
                Ok(None) => AgentError::Connection("the task's stream ended before the task".to_owned()),
                Err(status) => AgentError::of(&status),
            };
            self.open = None;
            self.may_go_on(error)?;
        }
        Ok(None)
    }

    /// After a failure: whether to try again.
    fn may_go_on(&mut self, error: AgentError) -> Result<(), AgentError> {
        let patience = self.agent.shared.options.patience;
        let since = *self.cut_since.get_or_insert_with(Instant::now);
        if error.may_pass() && since.elapsed() < patience {
            return Ok(());
        }
        self.over = true;
        if error.may_pass() {
            return Err(AgentError::Lost { patience, problem: error.to_string() });
        }
        Err(error)
    }

    /// Has a stream open.
    async fn reach(&mut self) -> Result<(), AgentError> {
        let mut pause = FIRST_PAUSE;
        while self.open.is_none() {
            match self.attach().await {
                Ok(open) => self.open = Some(open),
                Err(error) => {
                    self.may_go_on(error)?;
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        Ok(())
    }

    async fn attach(&mut self) -> Result<Open, AgentError> {
        loop {
            let wired = self.agent.wired().await?;
            let attaches = self.was_sent;
            let first = match &self.start {
                Some(start) if !attaches => Say::Start(start.clone()),
                _ => Say::Attach(Attach { task_id: self.id.clone(), received: Some(self.seen) }),
            };
            let (say, said) = mpsc::unbounded_channel();
            let _ = say.send(TaskRequest { message: Some(first) });
            self.was_sent = true;
            match client(wired.clone()).task(Said(said)).await {
                Ok(answer) => {
                    self.untold = 0;
                    let open = Open { say, heard: answer.into_inner(), is_attached: !attaches };
                    if let Some(end) = self.end {
                        open.say(end_by(end));
                    }
                    return Ok(open);
                }
                Err(status) => {
                    let error = AgentError::of(&status);
                    // It never arrived: nothing was heard of it, and the agent is the same.
                    let never = attaches && self.start.is_some() && status.code() == Code::NotFound;
                    if !(never && matches!(error, AgentError::Refused(_))) {
                        return Err(error);
                    }
                    self.was_sent = false;
                }
            }
        }
    }

    fn hear(&mut self, message: Heard) -> Result<Option<Event>, AgentError> {
        self.start = None;
        match message {
            Heard::Attached(attached) => {
                let taken = attached.taken.unwrap_or_default();
                if let Some(open) = &mut self.open {
                    open.is_attached = true;
                    self.orders.retain(|(number, _)| *number > taken.number);
                    for (_, order) in &self.orders {
                        open.say(order.clone());
                    }
                }
                self.input.again_from(taken.input);
                Ok(self.taken(taken))
            }
            Heard::Taken(taken) => Ok(self.taken(taken)),
            Heard::Started(_) if self.seen.started => Ok(None),
            Heard::Started(started) => {
                self.seen.started = true;
                Ok(Some(Event::Started { pid: started.pid }))
            }
            Heard::Log(log) => {
                if log.sequence > self.seen.logs {
                    self.seen.logs = log.sequence;
                    if self.notes.len() >= NOTES {
                        self.notes.pop_front();
                    }
                    self.notes.push_back(TaskNote { time_ms: log.time_ms, text: log.text });
                }
                Ok(None)
            }
            Heard::Output(output) => self.output(output),
            Heard::Result(result) => {
                self.over = true;
                self.seen.result = true;
                self.say_goodbye();
                Event::of_result(result).map(Some).map_err(|unclear| match unclear {
                    Unclear::Lost(why) => AgentError::TaskLost(why),
                    Unclear::No(problem) => AgentError::Protocol(problem),
                })
            }
        }
    }

    fn output(&mut self, mut output: TaskOutput) -> Result<Option<Event>, AgentError> {
        let seen = match output.stream() {
            Wire::Stderr => &mut self.seen.stderr,
            Wire::Stdout | Wire::Unspecified => &mut self.seen.stdout,
        };
        let Some(known) = seen.checked_sub(output.offset) else {
            return Err(AgentError::Protocol(format!("output from byte {}, after {seen}", output.offset)));
        };
        let length = output.data.len();
        // No more than its length, which is one of memory.
        output.data.advance(known.min(length as u64) as usize);
        output.offset = *seen;
        *seen += output.data.len() as u64;
        self.untold += length;
        if self.untold >= TELL
            && let Some(open) = &self.open
        {
            self.untold = 0;
            open.say(Say::Acknowledge(Acknowledge { received: Some(self.seen) }));
        }
        if output.data.is_empty() {
            return Ok(None);
        }
        Event::of_output(output).map(Some).map_err(AgentError::Protocol)
    }

    /// Lets the agent forget the task, without waiting for that.
    fn say_goodbye(&mut self) {
        let Some(open) = self.open.take() else { return };
        open.say(Say::Acknowledge(Acknowledge { received: Some(self.seen) }));
        let Open { say, mut heard, .. } = open;
        drop(say);
        // Until the agent has heard it: a stream that is dropped takes along what it hasn't sent.
        tokio::spawn(async move { while let Ok(Some(_)) = heard.message().await {} });
    }

    fn taken(&mut self, taken: Taken) -> Option<Event> {
        self.orders.retain(|(number, _)| *number > taken.number);
        let more = self.input.taken(taken.input);
        self.send_input();
        more.then_some(Event::InputTaken { offset: taken.input })
    }

    fn order(&mut self, order: impl Fn(u64) -> Say) {
        if self.over {
            return;
        }
        self.ordered += 1;
        let order = order(self.ordered);
        if let Some(open) = self.open.as_ref().filter(|open| open.is_attached) {
            open.say(order.clone());
        }
        self.orders.push_back((self.ordered, order));
    }

    fn send_input(&mut self) {
        let Some(open) = self.open.as_ref().filter(|open| open.is_attached && !self.over) else { return };
        while let Some(input) = self.input.next() {
            open.say(Say::Input(input));
        }
    }

    fn end(&mut self, grace: Duration) {
        let now = Instant::now();
        // A grace beyond what the clock can count is one without end.
        let by = now.checked_add(grace).unwrap_or_else(|| now + Duration::from_secs(100 * 365 * 24 * 3600));
        let by = self.end.map_or(by, |earlier| earlier.min(by));
        self.end = Some(by);
        if let Some(open) = &self.open {
            open.say(end_by(by));
        }
    }

    async fn finish(mut self: Box<Self>) -> Result<(), AgentError> {
        self.end(Duration::ZERO);
        while self.next().await?.is_some() {}
        Ok(())
    }
}

fn end_by(end: Instant) -> Say {
    let left = end.saturating_duration_since(Instant::now());
    Say::End(TaskEnd { grace_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX) })
}

/// Standard input on its way.
#[derive(Debug, Default)]
struct Outgoing {
    /// What wasn't taken, from `start` on.
    pieces: VecDeque<Bytes>,
    start: u64,
    /// Up to where it was said on this stream.
    said: u64,
    /// Up to where it was given by the caller.
    given: u64,
    taken: u64,
    is_last: bool,
    last_was_said: bool,
}

impl Outgoing {
    fn room(&self) -> u64 {
        if self.is_last { 0 } else { INPUT_WINDOW.saturating_sub(self.given - self.taken) }
    }

    fn push(&mut self, data: Bytes) {
        if !self.is_last && !data.is_empty() {
            self.given += data.len() as u64;
            self.pieces.push_back(data);
        }
    }

    /// Whether more was taken than was known.
    fn taken(&mut self, offset: u64) -> bool {
        let is_more = offset > self.taken;
        self.taken = self.taken.max(offset);
        while let Some(first) = self.pieces.front() {
            let end = self.start + first.len() as u64;
            if end > self.taken {
                break;
            }
            self.start = end;
            self.pieces.pop_front();
        }
        is_more
    }

    /// Another stream: what wasn't taken is said again.
    fn again_from(&mut self, offset: u64) {
        self.said = offset;
        self.last_was_said = false;
    }

    /// What may be said next.
    fn next(&mut self) -> Option<TaskInput> {
        if self.said < self.given {
            if self.said - self.taken.min(self.said) >= INPUT_WINDOW {
                return None;
            }
            let mut at = self.start;
            for piece in &self.pieces {
                let end = at + piece.len() as u64;
                if self.said < end {
                    let room = self.taken + INPUT_WINDOW - self.said;
                    let from = self.said - at;
                    let length = (end - self.said).min(room);
                    // Within the piece, whose length is one of memory.
                    let data = piece.slice(from as usize..(from + length) as usize);
                    let offset = self.said;
                    self.said += length;
                    return Some(TaskInput { offset, data, last: false });
                }
                at = end;
            }
        }
        if self.is_last && !self.last_was_said && self.said >= self.given {
            self.last_was_said = true;
            return Some(TaskInput { offset: self.given, data: Bytes::new(), last: true });
        }
        None
    }
}

/// What is said on a stream.
struct Said(mpsc::UnboundedReceiver<TaskRequest>);

impl Stream for Said {
    type Item = TaskRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<TaskRequest>> {
        self.0.poll_recv(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(input: &mut Outgoing) -> Vec<(u64, usize, bool)> {
        std::iter::from_fn(|| input.next()).map(|piece| (piece.offset, piece.data.len(), piece.last)).collect()
    }

    #[test]
    fn no_more_input_is_on_its_way_than_may_be() {
        let window = INPUT_WINDOW as usize;
        let mut input = Outgoing::default();
        input.push(vec![1; window - 10].into());
        input.push(vec![2; 30].into());
        assert_eq!(input.room(), 0);
        assert_eq!(said(&mut input), [(0, window - 10, false), (window as u64 - 10, 10, false)]);
        assert!(input.taken(100));
        assert_eq!(said(&mut input), [(window as u64, 20, false)]);
        input.is_last = true;
        assert_eq!(said(&mut input), [(window as u64 + 20, 0, true)]);
        assert!(said(&mut input).is_empty());
    }

    #[test]
    fn after_a_cut_what_was_not_taken_is_said_again() {
        let mut input = Outgoing::default();
        input.push(vec![0; 10].into());
        input.push(vec![0; 10].into());
        input.is_last = true;
        assert_eq!(said(&mut input).len(), 3);
        input.again_from(15);
        assert!(input.taken(15));
        assert_eq!(said(&mut input), [(15, 5, false), (20, 0, true)]);
        assert!(!input.taken(15), "nothing new");
    }
}
