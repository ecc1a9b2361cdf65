//! The one writer: a thread that carries out what gathered while it committed the last time, and commits it together.
//!
//! A command is a function on [`Writer`]. It runs in a savepoint, so that one that fails takes nothing of the others with
//! it, and is answered after the commit.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use executr_api::{Fence, failpoint};
use executr_spec::Timestamp;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::checkpoint::Checkpointer;
use super::error::from_sqlite;
use super::index::Index;
use super::lease::Leases;
use super::output::Logs;
use super::runs::Runs;
use super::statements::Statements;
use crate::{Clock, StoreError};

/// The most commands that one commit takes: bounds how long the first of them waits.
const MAX_GROUP: usize = 512;

/// What a command is, for the failpoints around its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Submit,
    Claim,
    Finish,
    Renew,
    Cancel,
    Sweep,
    Other,
}

impl Kind {
    fn before_commit(self) -> Option<&'static str> {
        match self {
            Self::Submit => Some("submit.before-commit"),
            Self::Claim => Some("claim.before-commit"),
            Self::Finish => Some("finish.before-commit"),
            _ => None,
        }
    }

    fn after_commit(self) -> Option<&'static str> {
        match self {
            Self::Submit => Some("submit.after-commit"),
            Self::Claim => Some("claim.after-commit"),
            Self::Finish => Some("finish.after-commit"),
            Self::Renew => Some("renew.after-commit"),
            Self::Cancel => Some("cancel.after-commit"),
            Self::Sweep => Some("sweep.after-commit"),
            Self::Other => None,
        }
    }
}

/// Told whether the commit succeeded; hands the answer over.
type Deliver = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

struct Request {
    kind: Kind,
    run: Box<dyn FnOnce(&mut Writer<'_>) -> Deliver + Send>,
}

/// What a writer works with besides its connection.
pub(super) struct WriterParts {
    pub(super) logs: Arc<Logs>,
    pub(super) checkpointer: Checkpointer,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) sync_delay: Duration,
}

/// What commands act on.
pub(super) struct Writer<'c> {
    pub(super) connection: &'c Connection,
    pub(super) statements: Statements<'c>,
    pub(super) index: Index,
    pub(super) leases: Leases,
    pub(super) runs: Runs,
    pub(super) logs: Arc<Logs>,
    pub(super) last_seq: i64,
    checkpointer: Checkpointer,
    clock: Arc<dyn Clock>,
    now: Timestamp,
    sync_delay: Duration,
    /// Attempts whose ends are recorded and not committed yet.
    ended: Vec<Fence>,
    /// Why there is no transaction: nothing may be carried out, for it would be committed by itself.
    not_begun: Option<StoreError>,
}

impl<'c> Writer<'c> {
    fn new(connection: &'c Connection, parts: WriterParts) -> Result<Self, StoreError> {
        let WriterParts { logs, checkpointer, clock, sync_delay } = parts;
        let now = clock.now();
        let mut writer = Self {
            connection,
            statements: Statements::new(connection),
            index: Index::default(),
            leases: Leases::default(),
            runs: Runs::default(),
            logs,
            last_seq: 0,
            checkpointer,
            clock,
            now,
            sync_delay,
            ended: Vec::new(),
            not_begun: None,
        };
        writer.load()?;
        Ok(writer)
    }

    /// Brings what is in memory to what the database holds.
    fn load(&mut self) -> Result<(), StoreError> {
        self.index = Index::load(self.connection)?;
        self.leases = Leases::load(self.connection)?;
        self.runs.load(self.connection)?;
        self.logs.keep_only(self.leases.fences());
        self.last_seq = self
            .connection
            .query_row(
                // Also numbers of what is gone but for its artifacts aren't used again.
                "SELECT max(coalesce((SELECT max(seq) FROM job), 0), coalesce((SELECT max(number) FROM run), 0),
                            coalesce((SELECT seq FROM artifact ORDER BY number DESC, seq DESC LIMIT 1), 0))",
                [],
                |row| row.get(0),
            )
            .map_err(from_sqlite)?;
        Ok(())
    }

    /// The time of the current command. It never runs backwards.
    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// The attempt has ended: its log is forgotten if and after that is committed.
    pub(super) fn forget_log(&mut self, fence: Fence) {
        self.ended.push(fence);
    }

    /// Runs one statement that returns nothing.
    pub(super) fn execute(&self, sql: &'static str, parameters: impl rusqlite::Params) -> Result<usize, StoreError> {
        self.statements.get(sql)?.execute(parameters).map_err(from_sqlite)
    }

    /// Reads at most one row.
    pub(super) fn find<T>(
        &self,
        sql: &'static str,
        parameters: impl rusqlite::Params,
        read: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        let mut statement = self.statements.get(sql)?;
        let mut rows = statement.query(parameters).map_err(from_sqlite)?;
        rows.next().and_then(|row| row.map(read).transpose()).map_err(from_sqlite)
    }

    fn statement(&self, sql: &'static str) -> Result<(), StoreError> {
        self.execute(sql, []).map(drop)
    }

    /// Runs one command in a savepoint. After an error the database and memory are as before.
    fn run<T>(&mut self, command: impl FnOnce(&mut Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        if let Some(error) = &self.not_begun {
            return Err(StoreError::Unavailable(error.to_string()));
        }
        self.now = self.now.max(self.clock.now());
        let ended = self.ended.len();
        self.statement("SAVEPOINT command")?;
        let result = command(self).and_then(|answer| {
            self.index.flush(self.connection)?;
            self.flush_runs()?;
            self.statement("RELEASE command")?;
            self.runs.command_is_done();
            Ok(answer)
        });
        if result.is_err() {
            self.ended.truncate(ended);
            // When SQLite itself gave up the whole transaction there is no savepoint left; the commit will tell.
            if !self.connection.is_autocommit() {
                self.statement("ROLLBACK TO command")?;
                self.statement("RELEASE command")?;
            }
            self.load()?;
        }
        result
    }

    fn run_group(&mut self, first: Request, rest: &Receiver<Request>) {
        self.begin();
        let mut answers = Vec::new();
        let mut next = Some(first);
        let mut wrote = false;
        while let Some(Request { kind, run }) = next {
            let before = self.connection.total_changes();
            let deliver = run(self);
            wrote |= self.connection.total_changes() != before;
            answers.push((kind, deliver));
            next = if answers.len() < MAX_GROUP { rest.try_recv().ok() } else { None };
        }
        if self.not_begun.take().is_some() {
            // Each has its error as its answer.
            answers.into_iter().for_each(|(_, deliver)| deliver(Ok(())));
            return;
        }
        for (kind, _) in &answers {
            if let Some(point) = kind.before_commit() {
                failpoint::pass(point);
            }
        }
        let committed = self.statement("COMMIT");
        match &committed {
            Ok(()) => {
                if wrote && !self.sync_delay.is_zero() {
                    std::thread::sleep(self.sync_delay);
                }
                self.logs.forget(&self.ended);
                self.ended.clear();
            }
            Err(error) => {
                tracing::error!(%error, "a transaction could not be committed");
                self.ended.clear();
                self.roll_back();
            }
        }
        for (kind, deliver) in answers {
            if let (Ok(()), Some(point)) = (&committed, kind.after_commit()) {
                failpoint::pass(point);
            }
            deliver(match &committed {
                Ok(()) => Ok(()),
                Err(error) => Err(StoreError::Unavailable(error.to_string())),
            });
        }
        if wrote {
            self.checkpointer.committed(self.connection);
        }
    }

    /// Begins the transaction of a group; `not_begun` tells when there is none.
    fn begin(&mut self) {
        let Err(error) = self.statement("BEGIN IMMEDIATE") else { return };
        tracing::error!(%error, "a transaction could not be begun");
        self.not_begun = Some(error);
        if !self.connection.is_autocommit() {
            // One that could not even be rolled back is in the way. The next group has another try.
            self.roll_back();
        }
    }

    /// Nothing since the beginning of the transaction was.
    fn roll_back(&mut self) {
        if !self.connection.is_autocommit() {
            // Nothing more can be done about an error here: the next BEGIN tells.
            let _ = self.statement("ROLLBACK");
        }
        self.runs.distrust();
        if let Err(error) = self.load() {
            tracing::error!(%error, "the queue could not be read again");
        }
    }

    /// Proves that the database answers.
    pub(super) fn ping(&self) -> Result<(), StoreError> {
        self.find("SELECT 1", [], |_| Ok(())).map(drop)
    }
}

/// The way to the writer; when the last is dropped the thread ends.
#[derive(Debug)]
pub(super) struct WriterHandle {
    requests: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl WriterHandle {
    /// Starts the thread; returns when it has read what is in the database.
    pub(super) fn start(connection: Connection, parts: WriterParts) -> Result<Self, StoreError> {
        let (requests, receiver) = channel::<Request>();
        let (ready, is_ready) = channel();
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || {
                let mut writer = match Writer::new(&connection, parts) {
                    Ok(writer) => writer,
                    Err(error) => return drop(ready.send(Err(error))),
                };
                drop(ready.send(Ok(())));
                while let Ok(request) = receiver.recv() {
                    writer.run_group(request, &receiver);
                }
            })
            .map_err(|error| StoreError::Unavailable(format!("the writer's thread could not be started: {error}")))?;
        is_ready.recv().map_err(|_| stopped())??;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    /// Carries out a command; returns when it is on disk.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        kind: Kind,
        command: impl FnOnce(&mut Writer<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, answer) = oneshot::channel();
        let run = Box::new(move |writer: &mut Writer<'_>| {
            let result = writer.run(command);
            let deliver: Deliver = Box::new(move |committed| {
                // Whoever asked may have gone.
                let _ = sender.send(committed.and(result));
            });
            deliver
        });
        self.requests.as_ref().and_then(|requests| requests.send(Request { kind, run }).ok()).ok_or_else(stopped)?;
        answer.await.map_err(|_| stopped())?
    }
}

impl Drop for WriterHandle {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take() {
            // A panic in the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

fn stopped() -> StoreError {
    StoreError::Unavailable("the store's writer has stopped".to_owned())
}
