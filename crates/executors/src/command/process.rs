//! The argv that runs: a task of a keeper on this machine, watched over by a task of its own here.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::error::aside;
use crate::contract::{Event, ExecutorError, Exit, Sandbox, StepPlan};

/// How long it may take to end once its agent has.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long after SIGTERM then, to put away what it made.
const GRACE: Duration = Duration::from_secs(10);

/// Of what it writes to standard error, how much is told in errors.
const MOST_SAID: usize = 2_000;
const MOST_LINES: usize = 10;

/// How an argv ended, and what it wrote last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    how: String,
    said: String,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.how, aside(&self.said))
    }
}

/// How far it is.
#[derive(Clone, Debug, Default)]
struct State {
    said: String,
    /// Once nothing of it is left.
    ended: Option<String>,
}

/// An argv. Dropped, it is ended at once, and its directory removed, in the background.
pub(super) struct Process {
    /// How long it may still take. Closed, it is to end at once.
    orders: mpsc::UnboundedSender<Duration>,
    state: watch::Receiver<State>,
    watcher: JoinHandle<Result<(), ExecutorError>>,
}

impl Process {
    /// Starts it in `scratch`, which goes with it.
    pub(super) fn start(scratch: Box<dyn Sandbox>, step: StepPlan) -> Self {
        let (orders, ordered) = mpsc::unbounded_channel();
        let (tell, state) = watch::channel(State::default());
        let watcher = tokio::spawn(watch(scratch, step, ordered, tell));
        Self { orders, state, watcher }
    }

    /// What it wrote last to standard error.
    pub(super) fn said(&self) -> String {
        self.state.borrow().said.clone()
    }

    /// Waits until nothing of it is left.
    pub(super) async fn ended(&self) -> Account {
        let mut state = self.state.clone();
        let ended = state.wait_for(|state| state.ended.is_some()).await;
        let state = ended.map(|state| state.clone()).unwrap_or_default();
        Account { how: state.ended.unwrap_or_else(|| "is gone".to_owned()), said: state.said }
    }

    /// Ends it at once.
    pub(super) fn kill(&self) {
        // It has ended when nobody takes that.
        let _ = self.orders.send(Duration::ZERO);
    }

    /// Waits for its end, which is asked for when it doesn't come by itself, and removes its directory.
    pub(super) async fn finish(self) -> Result<(), ExecutorError> {
        if tokio::time::timeout(PATIENCE, self.ended()).await.is_err() {
            let _ = self.orders.send(GRACE);
            self.ended().await;
        }
        drop(self.orders);
        match self.watcher.await {
            Ok(removed) => removed,
            Err(broken) => match broken.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Ok(()),
            },
        }
    }
}

/// Runs it to its end, keeps its directory until nobody needs that, and removes it.
async fn watch(
    mut scratch: Box<dyn Sandbox>,
    step: StepPlan,
    mut orders: mpsc::UnboundedReceiver<Duration>,
    tell: watch::Sender<State>,
) -> Result<(), ExecutorError> {
    let how = run(scratch.as_mut(), step, &mut orders, &tell).await;
    tell.send_modify(|state| state.ended = Some(how));
    while orders.recv().await.is_some() {}
    scratch.cleanup().await
}

async fn run(
    scratch: &mut dyn Sandbox,
    step: StepPlan,
    orders: &mut mpsc::UnboundedReceiver<Duration>,
    tell: &watch::Sender<State>,
) -> String {
    let mut execution = match scratch.execute(step).await {
        Ok(execution) => execution,
        Err(error) => return format!("can't be started: {error}"),
    };
    let mut said = Said::default();
    let mut wanted = true;
    loop {
        tokio::select! {
            event = execution.next() => match event {
                Ok(Some(Event::Output { data, .. })) => {
                    said.push(&data);
                    tell.send_modify(|state| state.said = said.text());
                }
                Ok(Some(Event::Ended(ended))) if ended.oom_killed => return "ended out of memory".to_owned(),
                Ok(Some(Event::Ended(ended))) => {
                    return match ended.exit {
                        Exit::Code(code) => format!("ended with exit code {code}"),
                        Exit::Signal(signal) => format!("was killed by signal {signal}"),
                    };
                }
                Ok(Some(Event::StartFailed(failed))) => return format!("can't be started: {}", failed.failure),
                Ok(Some(Event::Started { .. } | Event::InputTaken { .. })) => {}
                Ok(None) => return "is gone".to_owned(),
                Err(error) => return format!("is lost: {error}"),
            },
            order = orders.recv(), if wanted => {
                wanted = order.is_some();
                // If it can't be said, the next event tells why.
                drop(execution.end(order.unwrap_or_default()).await);
            }
        }
    }
}

/// The last lines of what is written.
#[derive(Default)]
struct Said(VecDeque<u8>);

impl Said {
    fn push(&mut self, data: &[u8]) {
        let text = String::from_utf8_lossy(data);
        tracing::debug!("an executor's argv says: {}", text.trim_end());
        self.0.extend(data);
        self.0.drain(..self.0.len().saturating_sub(MOST_SAID));
    }

    fn text(&self) -> String {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<_> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(MOST_LINES)..].join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_told() {
        let mut said = Said::default();
        assert_eq!(said.text(), "");
        for line in 0..1_000 {
            said.push(format!("line {line}\n\n").as_bytes());
        }
        said.push(b"\xffend");
        let text = said.text();
        assert!(text.starts_with("line 991; ") && text.ends_with("; line 999; \u{fffd}end"), "{text}");
        said.push(&[b'x'; 10_000]);
        assert_eq!(said.text().len(), MOST_SAID);
    }
}
