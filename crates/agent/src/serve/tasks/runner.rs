//! What runs a task: a keeper, and who stands between it and the callers.
//!
//! Nothing is read from the keeper while as much is kept as may be; the keeper then reads nothing from the task, which so waits
//! in its write to a full pipe. A task that nobody follows is ended when its patience is over.

use std::future::pending;
use std::time::Duration;

use executr_agent_protocol::driver::{KeeperError, Task, TaskMessage};
use executr_agent_protocol::v1::task_response::Message;
use executr_agent_protocol::v1::{self, StartPhase, StartTask, TaskResult, task_result};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::entry::{Entry, Order};
use crate::serve::keepers::{Keepers, NoKeeper};

/// Keepers that are tried: one that rested may have been killed meanwhile.
const TRIES: usize = 10;

/// Runs a task to its end, and stays until somebody has taken its result, or nobody does. Whether its caller was away too long.
pub(super) async fn run(
    entry: &Entry,
    keepers: &Keepers,
    start: StartTask,
    mut orders: mpsc::UnboundedReceiver<Order>,
) -> bool {
    let mut alone = Alone::default();
    let result = begin_and_follow(entry, keepers, &start, &mut orders, &mut alone).await;
    drop(orders);
    entry.input_over();
    entry.tell(Message::Result(result));
    loop {
        let standing = entry.standing();
        if standing.is_forgotten || standing.is_abandoned {
            return false;
        }
        let deadline = alone.deadline(standing.is_followed, entry.patience);
        tokio::select! {
            () = entry.to_runner.notified() => {}
            () = until(deadline) => return true,
        }
    }
}

async fn begin_and_follow(
    entry: &Entry,
    keepers: &Keepers,
    start: &StartTask,
    orders: &mut mpsc::UnboundedReceiver<Order>,
    alone: &mut Alone,
) -> TaskResult {
    for _ in 0..TRIES {
        let mut hired = match keepers.hire().await {
            Ok(hired) => hired,
            Err(error) => return not_started(&error),
        };
        let followed = match hired.keeper.start(start.clone()).await {
            Ok(task) => follow(entry, task, orders, alone).await,
            // It was killed while it rested.
            Err(KeeperError::Lost) => continue,
            Err(error) => Err(error),
        };
        return match followed {
            Ok(result) => {
                keepers.release(hired);
                result
            }
            Err(KeeperError::TooLong(error)) => {
                keepers.release(hired);
                failed(StartPhase::Request, libc::E2BIG, error.to_string())
            }
            Err(error) => {
                // Alive or not: nobody can use it any more.
                keepers.kill(hired.pid);
                lost(&error)
            }
        };
    }
    lost(&KeeperError::Lost)
}

/// From the start to the result.
async fn follow(
    entry: &Entry,
    mut task: Task<'_>,
    orders: &mut mpsc::UnboundedReceiver<Order>,
    alone: &mut Alone,
) -> Result<TaskResult, KeeperError> {
    let mut given_up = false;
    loop {
        let standing = entry.standing();
        let is_awaited = !(given_up || standing.is_abandoned);
        let deadline = if is_awaited { alone.deadline(standing.is_followed, entry.patience) } else { None };
        // Of a task that is given up nobody will read anything.
        let reads = !is_awaited || !standing.is_full;
        tokio::select! {
            biased;
            Some(order) = orders.recv() => obey(&mut task, order).await?,
            message = task.next_message(), if reads => match message? {
                Some(TaskMessage::Result(result)) => return Ok(result),
                Some(TaskMessage::InputTaken(offset)) => entry.input_taken(offset),
                Some(TaskMessage::Started(started)) => entry.tell(Message::Started(started)),
                Some(TaskMessage::Output(_)) if !is_awaited => {}
                Some(TaskMessage::Output(output)) => entry.tell(Message::Output(output)),
                None => return Err(KeeperError::Protocol("a task without an end".to_owned())),
            },
            () = entry.to_runner.notified() => {}
            () = until(deadline) => {
                given_up = true;
                entry.give_up();
                task.end(Duration::ZERO).await?;
            }
        }
    }
}

async fn obey(task: &mut Task<'_>, order: Order) -> Result<(), KeeperError> {
    match order {
        Order::Input(data, last) => task.write_input(data, last).await,
        Order::Resize(rows, columns) => task.resize(rows, columns).await,
        Order::Signal(signal) => task.signal(signal).await,
        Order::End(grace) => task.end(grace).await,
    }
}

/// Since when nobody follows a task.
#[derive(Debug, Default)]
struct Alone(Option<Instant>);

impl Alone {
    /// When that has been so for too long.
    fn deadline(&mut self, is_followed: bool, patience: Duration) -> Option<Instant> {
        if is_followed {
            self.0 = None;
            return None;
        }
        self.0.get_or_insert_with(Instant::now).checked_add(patience)
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

fn not_started(error: &NoKeeper) -> TaskResult {
    let errno = match error {
        NoKeeper::Spawn(error) => error.raw_os_error().unwrap_or(0),
        NoKeeper::Keeper(_) => 0,
    };
    failed(StartPhase::Process, errno, error.to_string())
}

fn failed(phase: StartPhase, errno: i32, message: String) -> TaskResult {
    let failure = v1::Failure { errno, message, ..Default::default() };
    let failed = v1::StartFailed { phase: phase.into(), failure: Some(failure) };
    TaskResult { outcome: Some(task_result::Outcome::StartFailed(failed)), ..Default::default() }
}

fn lost(error: &KeeperError) -> TaskResult {
    let why = match error {
        KeeperError::Lost => "the keeper that ran the task was killed, out of memory or by another step; start the task again".to_owned(),
        KeeperError::Silent => "the keeper that ran the task stopped answering and was killed; look whether the job stops processes it didn't start".to_owned(),
        other => other.to_string(),
    };
    TaskResult { outcome: Some(task_result::Outcome::Lost(why)), ..Default::default() }
}
