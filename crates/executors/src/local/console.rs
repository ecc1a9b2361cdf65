//! Consoles with keepers of their own, beside the one that runs the steps.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use executr_agent_protocol::driver::{Input, Keeper, KeeperSource, Pipe, StartTask, Task, Terminal};
use tokio::sync::mpsc;

use super::workspace::RunAs;
use crate::contract::{Console, ConsolePlan, Consoles, Event, ExecutorError, KeeperError, Limits};

/// How many orders may wait.
const ORDERS: usize = 16;
/// How many events may wait.
const EVENTS: usize = 4;

/// What a console in a job's directory is started with.
pub(super) struct LocalConsoles {
    source: KeeperSource,
    directory: PathBuf,
    /// The job's own bounds, each console's for itself: its tree is none of the job's.
    limits: Limits,
    run_as: Arc<RunAs>,
}

impl LocalConsoles {
    /// `None` where there is but one keeper.
    pub(super) fn of(
        source: &KeeperSource,
        directory: &Path,
        limits: Limits,
        run_as: &Arc<RunAs>,
    ) -> Option<Arc<dyn Consoles>> {
        if matches!(source, KeeperSource::Stream(_)) {
            return None;
        }
        let (source, directory, run_as) = (source.clone(), directory.to_owned(), Arc::clone(run_as));
        Some(Arc::new(Self { source, directory, limits, run_as }))
    }
}

#[async_trait]
impl Consoles for LocalConsoles {
    async fn open(&self, plan: ConsolePlan) -> Result<Box<dyn Console>, ExecutorError> {
        let keeper = Keeper::of(self.source.clone()).await?;
        let start = plan.workdir.map_or_else(|| self.directory.clone(), |workdir| self.directory.join(workdir));
        let input = match plan.terminal {
            None => Input::Pipe(Pipe {}),
            Some(terminal) => Input::Terminal(Terminal {
                rows: terminal.rows.into(),
                columns: terminal.columns.into(),
                term: terminal.kind.unwrap_or_default().into(),
            }),
        };
        let request = StartTask {
            argv: plan.argv,
            env: plan.env,
            directory: Bytes::from(OsString::from(start).into_vec()),
            limits: Some(self.limits),
            user: self.run_as.user.clone(),
            without_privileges: self.run_as.without_privileges,
            input: Some(input),
            ..StartTask::default()
        };
        let (orders, ordered) = mpsc::channel(ORDERS);
        let (tell, events) = mpsc::channel(EVENTS);
        tokio::spawn(run(keeper, request, ordered, tell));
        Ok(Box::new(LocalConsole { orders, events }))
    }
}

enum Order {
    Input(Bytes, bool),
    Resize(u16, u16),
    Signal(u8),
    End(Duration),
}

/// A console whose keeper is driven by a task, which ends when this is dropped.
struct LocalConsole {
    orders: mpsc::Sender<Order>,
    events: mpsc::Receiver<Result<Event, KeeperError>>,
}

impl LocalConsole {
    async fn order(&self, order: Order) -> Result<(), ExecutorError> {
        // After the end there is nobody to order anything.
        let _ = self.orders.send(order).await;
        Ok(())
    }
}

#[async_trait]
impl Console for LocalConsole {
    async fn next(&mut self) -> Result<Option<Event>, ExecutorError> {
        Ok(self.events.recv().await.transpose()?)
    }

    async fn write_input(&mut self, data: Bytes, last: bool) -> Result<(), ExecutorError> {
        self.order(Order::Input(data, last)).await
    }

    async fn resize(&mut self, rows: u16, columns: u16) -> Result<(), ExecutorError> {
        self.order(Order::Resize(rows, columns)).await
    }

    async fn signal(&mut self, signal: u8) -> Result<(), ExecutorError> {
        self.order(Order::Signal(signal)).await
    }

    async fn end(&mut self, grace: Duration) -> Result<(), ExecutorError> {
        self.order(Order::End(grace)).await
    }
}

/// Runs a task to its end, or until nobody wants it any more, and lets its keeper go.
async fn run(
    mut keeper: Keeper,
    request: StartTask,
    mut orders: mpsc::Receiver<Order>,
    tell: mpsc::Sender<Result<Event, KeeperError>>,
) {
    let failed = match keeper.start(request).await {
        Ok(task) => attend(task, &mut orders, &tell).await.err(),
        Err(error) => Some(error),
    };
    if let Err(error) = keeper.close().await {
        tracing::debug!(%error, "a console's keeper can't be waited for");
    }
    // Told last: then nothing of it is left.
    if let Some(error) = failed {
        let _ = tell.send(Err(error)).await;
    }
}

async fn attend(
    mut task: Task<'_>,
    orders: &mut mpsc::Receiver<Order>,
    tell: &mpsc::Sender<Result<Event, KeeperError>>,
) -> Result<(), KeeperError> {
    // One that waits to be taken.
    let mut event = None;
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Input(data, last)) => task.write_input(data, last).await?,
                Some(Order::Resize(rows, columns)) => task.resize(rows.into(), columns.into()).await?,
                Some(Order::Signal(signal)) => task.signal(signal.into()).await?,
                Some(Order::End(grace)) => task.end(grace).await?,
                None => return Ok(()),
            },
            permit = tell.reserve(), if event.is_some() => match (permit, event.take()) {
                (Ok(permit), Some(event)) => permit.send(Ok(event)),
                _ => return Ok(()),
            },
            next = task.next(), if event.is_none() => match next? {
                Some(next) => event = Some(next),
                None => return Ok(()),
            },
        }
    }
}
