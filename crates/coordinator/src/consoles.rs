//! Consoles in running jobs: who wants one waits here until the job's worker takes the other end.
//!
//! Nothing of it is durable. A console goes with the process that joined its two ends, and whoever has it is told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use executr_api::console::{ConsoleFrame, ConsoleId, ConsoleLine, ConsoleOrder};
use executr_api::{ApiError, ErrorCode, JobState};
use executr_spec::JobId;
use futures_util::{StreamExt as _, sink, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::core::Core;
use crate::lock::Lock;
use crate::refusal;
use crate::sessions::Session;

/// How many there may be at a time.
const MOST: usize = 256;
/// How long a worker may take to take its end.
const JOIN: Duration = Duration::from_secs(15);
/// A worker calls again at once, so one that hasn't for so long is gone, or on its way back to a server that was away.
const GONE: Duration = Duration::from_secs(5);
/// How often it is looked whether it is.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many frames may wait between the two ends.
const BETWEEN: usize = 4;

/// Those that nobody has taken the host's end of.
#[derive(Debug)]
pub(crate) struct Consoles {
    wanted: Lock<HashMap<ConsoleId, oneshot::Sender<ConsoleLine>>>,
    places: Arc<Semaphore>,
}

impl Default for Consoles {
    fn default() -> Self {
        Self { wanted: Lock::default(), places: Arc::new(Semaphore::new(MOST)) }
    }
}

/// Somebody waits for a console. Dropped, nobody does.
struct Wanted<'a> {
    core: &'a Core,
    session: &'a Session,
    console: ConsoleId,
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        self.core.consoles.wanted.hold().remove(&self.console);
        self.session.console_is_over(self.console);
    }
}

impl Core {
    /// A line to the worker that runs the job; `by` says for whom, for its log.
    pub(crate) async fn console(&self, job: JobId, by: String) -> Result<ConsoleLine, ApiError> {
        self.refuse_when_stopping()?;
        let deadline = Instant::now() + JOIN;
        let mut watch = self.watches.watch(job);
        let worker = self.running_on(job).await?;
        let place = Arc::clone(&self.consoles.places).try_acquire_owned().map_err(|_| {
            let text = format!("{MOST} consoles are open on this server; end one first");
            ApiError::new(ErrorCode::TooMany, text)
        })?;
        let there = |silent: Option<Duration>| {
            let text = match silent {
                Some(silent) if silent < GONE => return Ok(()),
                Some(silent) => format!("hasn't been heard of for {} s; its lease runs out", silent.as_secs()),
                None => {
                    "isn't connected to this server; if it is to another of the same database, ask that one".to_owned()
                }
            };
            let error =
                ApiError::new(ErrorCode::Unavailable, format!("executor {worker}, which runs job {job}, {text}"));
            Err(error.with("executor_id", &worker))
        };
        let session = self.sessions.of(&worker);
        there(session.silent())?;
        let console = ConsoleId(Uuid::new_v4());
        let (answer, mut answered) = oneshot::channel();
        self.consoles.wanted.hold().insert(console, answer);
        let _wanted = Wanted { core: self, session: &session, console };
        tracing::info!(%job, %worker, by, "a console is opened");
        session.console(ConsoleOrder { console, job, by });
        loop {
            tokio::select! {
                line = &mut answered => return line.map(|line| held(line, place)).map_err(|_| refusal::broken()),
                // Over or not: the job and its worker are looked at.
                _ = timeout_at(deadline.min(Instant::now() + LOOK_EVERY), watch.changed()) => {}
            }
            self.refuse_when_stopping()?;
            self.running_on(job).await?;
            there(session.silent())?;
            if Instant::now() >= deadline {
                let text = format!(
                    "executor {worker}, which runs job {job}, has no consoles, or doesn't answer; is it as new as this server?"
                );
                return Err(ApiError::new(ErrorCode::Unavailable, text).with("executor_id", worker));
            }
        }
    }

    /// The host's end of a console.
    pub(crate) fn join_console(&self, console: ConsoleId) -> Result<ConsoleLine, ApiError> {
        let answer = self.consoles.wanted.hold().remove(&console);
        let gone = || ApiError::new(ErrorCode::NotFound, "nobody waits for this console any more");
        let (caller, host) = pair();
        answer.ok_or_else(gone)?.send(caller).map_err(|_| gone())?;
        Ok(host)
    }

    /// Which worker runs the job.
    async fn running_on(&self, job: JobId) -> Result<executr_spec::WorkerId, ApiError> {
        let record = self.record_of(job).await?;
        let why = match (record.state, record.worker) {
            (JobState::Running | JobState::Cancelling, Some(worker)) => return Ok(worker),
            (state, _) if state.is_final() => {
                format!("is over: it is {}, and its sandbox went with it", state.as_str())
            }
            (state, _) => format!("doesn't run: it is {}", state.as_str()),
        };
        let error = ApiError::new(ErrorCode::Conflict, format!("job {job} {why}"));
        Err(error.with("job_id", job).with("state", record.state.as_str()))
    }
}

/// The line, which takes a place as long as it is there.
fn held(line: ConsoleLine, place: OwnedSemaphorePermit) -> ConsoleLine {
    let frames = line.frames.map(move |frame| {
        let _held = &place;
        frame
    });
    ConsoleLine { sink: line.sink, frames: frames.boxed() }
}

/// Both ends of a line within this process.
fn pair() -> (ConsoleLine, ConsoleLine) {
    let (one, other) = (mpsc::channel(BETWEEN), mpsc::channel(BETWEEN));
    (end(one.0, other.1), end(other.0, one.1))
}

fn end(sender: mpsc::Sender<ConsoleFrame>, receiver: mpsc::Receiver<ConsoleFrame>) -> ConsoleLine {
    let sink = sink::unfold(sender, |sender, frame| async move {
        let gone = |_| ApiError::new(ErrorCode::Unavailable, "the console's other end is gone");
        sender.send(frame).await.map_err(gone)?;
        Ok(sender)
    });
    let frames =
        stream::unfold(receiver, |mut receiver| async move { Some((Ok(receiver.recv().await?), receiver)) }).boxed();
    ConsoleLine { sink: Box::pin(sink), frames }
}
