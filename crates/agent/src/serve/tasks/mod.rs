//! What runs, and who follows it.
//!
//! - `story`: what a task's caller is to learn, bounded;
//! - `entry`: one task as its callers and its runner share it;
//! - `runner`: the keeper that runs it, and how long it goes on without a caller;
//! - `stream`: one caller's stream.

mod entry;
mod runner;
mod story;
mod stream;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use executr_agent_protocol::v1::task_request::Message;
use executr_agent_protocol::v1::{Attach, Attached, StartTaskRequest, TaskRequest, TaskSummary};
use tokio::sync::Notify;
use tonic::{Status, Streaming};

use self::entry::{Entry, Order, away};
pub(super) use self::stream::TaskStream;
use super::keepers::Keepers;

/// Characters of a task's name at most.
const LONGEST_NAME: usize = 64;

/// Tasks at once.
const MOST: usize = 4096;

/// Tasks whose caller was away too long that are remembered, to tell it so.
const REMEMBERED: usize = 1024;

/// All tasks of this agent.
pub(super) struct Tasks {
    keepers: Arc<Keepers>,
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    /// Counts tasks: what those without a name are known by here.
    started: u64,
    tasks: HashMap<Key, Arc<Entry>>,
    given_up: VecDeque<(String, Duration)>,
    is_closed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Named(String),
    Nameless(u64),
}

impl Tasks {
    pub(super) fn new(keepers: Arc<Keepers>) -> Self {
        Self { keepers, inner: Mutex::default(), changed: Notify::new() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Told when the last one is over.
    pub(super) fn changed(&self) -> &Notify {
        &self.changed
    }

    pub(super) fn is_none(&self) -> bool {
        self.inner().tasks.is_empty()
    }

    pub(super) fn list(&self) -> Vec<TaskSummary> {
        self.inner().tasks.values().map(|entry| entry.summary()).collect()
    }

    /// A caller's stream, whose first message says what it is for.
    pub(super) async fn open(self: &Arc<Self>, mut said: Streaming<TaskRequest>) -> Result<TaskStream, Status> {
        let first = said.message().await?.and_then(|request| request.message);
        let (entry, reader, attached) = match first {
            Some(Message::Start(start)) => (self.start(start)?, 0, None),
            Some(Message::Attach(attach)) => {
                let (entry, reader, attached) = self.attach(attach)?;
                (entry, reader, Some(attached))
            }
            _ => return Err(Status::invalid_argument("the first message of a task's stream is `start` or `attach`")),
        };
        tokio::spawn(stream::listen(Arc::clone(&entry), reader, said));
        Ok(TaskStream::new(entry, reader, attached))
    }

    fn start(self: &Arc<Self>, mut request: StartTaskRequest) -> Result<Arc<Entry>, Status> {
        let Some(task) = request.task.as_mut().map(std::mem::take) else {
            return Err(Status::invalid_argument("there is no `task` to start"));
        };
        if request.task_id.len() > LONGEST_NAME {
            return Err(Status::invalid_argument(format!("a task's name has at most {LONGEST_NAME} characters")));
        }
        let (key, entry, orders) = {
            let mut inner = self.inner();
            if inner.is_closed {
                return Err(Status::aborted("the agent is ending; call again when there is another one"));
            }
            if inner.tasks.len() >= MOST {
                return Err(Status::resource_exhausted(format!("{MOST} tasks run already; wait for one to end")));
            }
            inner.started += 1;
            let key = match request.task_id.as_str() {
                "" => Key::Nameless(inner.started),
                name => Key::Named(name.to_owned()),
            };
            if inner.tasks.contains_key(&key) {
                return Err(Status::already_exists("a task of this name was started before; attach to it"));
            }
            let (entry, orders) = Entry::new(&request, &task);
            let entry = Arc::new(entry);
            inner.tasks.insert(key.clone(), Arc::clone(&entry));
            (key, entry, orders)
        };
        tokio::spawn({
            let (tasks, entry) = (Arc::clone(self), Arc::clone(&entry));
            async move {
                let was_away = runner::run(&entry, &tasks.keepers, task, orders).await;
                tasks.over(&key, &entry, was_away);
            }
        });
        Ok(entry)
    }

    fn attach(&self, attach: Attach) -> Result<(Arc<Entry>, u64, Attached), Status> {
        let inner = self.inner();
        let Some(entry) = inner.tasks.get(&Key::Named(attach.task_id.clone())) else {
            let given_up = inner.given_up.iter().find(|(id, _)| *id == attach.task_id);
            return Err(given_up.map_or_else(
                || Status::not_found("there is no task of this name; it was never started, or its result was taken"),
                |(_, patience)| away(*patience),
            ));
        };
        let (reader, taken) = entry.attach(&attach.received.unwrap_or_default())?;
        Ok((Arc::clone(entry), reader, Attached { taken: Some(taken) }))
    }

    fn over(&self, key: &Key, entry: &Entry, was_away: bool) {
        let mut inner = self.inner();
        inner.tasks.remove(key);
        if was_away {
            entry.give_up();
            if let Key::Named(id) = key {
                if inner.given_up.len() >= REMEMBERED {
                    inner.given_up.pop_front();
                }
                inner.given_up.push_back((id.clone(), entry.patience));
            }
        }
        self.changed.notify_one();
    }

    /// Ends all that runs, starts nothing more, and waits until nothing is left.
    pub(super) async fn end_all(&self) {
        let entries: Vec<_> = {
            let mut inner = self.inner();
            inner.is_closed = true;
            inner.tasks.values().cloned().collect()
        };
        for entry in &entries {
            entry.order(Order::End(Duration::ZERO));
            entry.abandon();
        }
        drop(entries);
        while !self.is_none() {
            self.changed.notified().await;
        }
    }
}
