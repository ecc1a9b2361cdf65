//! A run as it goes on: its events, and the output of its jobs, put in one order and shown.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use executr_api::output::{Record, Stream};
use executr_api::{
    ApiError, JobState, OutputEvent, OutputFollow, RunClient, RunEvent, RunEventFollow, RunEventKind, RunEventStream,
    RunJobView, StepMark,
};
use executr_spec::{JobId, RunId};
use futures_util::stream::{BoxStream, SelectAll};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::{Instant, MissedTickBehavior};

use crate::show::run::{Happening, PartialLines, REDRAW, RunShow, StepAt, Tail};

/// The output of a job that is over sooner than this is read once, when it is over.
const PATIENCE: Duration = Duration::from_millis(50);

/// Why no more was shown.
#[derive(Debug)]
pub(super) enum WatchEnd {
    /// The run is final and everything of it was shown.
    Final,
    /// The run's events, or a job's output, can't be read any further.
    Api(ApiError),
    /// Nobody can see it any more.
    Unseen(std::io::Error),
}

/// What was seen of a run's jobs.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The last lines of each job that wrote any.
    pub(super) tails: BTreeMap<String, Tail>,
}

/// All jobs of a run, in the order of its plan.
pub(super) async fn jobs(client: &dyn RunClient, run: RunId) -> Result<Vec<RunJobView>, ApiError> {
    let mut jobs = Vec::new();
    loop {
        let from = u32::try_from(jobs.len()).unwrap_or(u32::MAX);
        let mut page = client.run_jobs(run, from, None).await?;
        if page.is_empty() {
            return Ok(jobs);
        }
        jobs.append(&mut page);
    }
}

/// Shows a run from the event after `after` to its last.
pub(super) async fn watch(
    client: &dyn RunClient,
    run: RunId,
    after: u64,
    show: &mut dyn RunShow,
    seen: &mut Seen,
) -> WatchEnd {
    let ids = match jobs(client, run).await {
        Ok(jobs) => jobs.into_iter().map(|job| (job.name, job.id)).collect(),
        Err(error) => return WatchEnd::Api(error),
    };
    let events = match client.run_events(run, RunEventFollow { after, follow: true }).await {
        Ok(events) => events,
        Err(error) => return WatchEnd::Api(error),
    };
    let mut watch =
        Watch { client, run, show, seen, ids, outputs: SelectAll::new(), open: HashMap::new(), begun: VecDeque::new() };
    match watch.follow(events).await {
        Ok(()) => WatchEnd::Final,
        Err(end) => end,
    }
}

type Output<'a> = BoxStream<'a, (String, Option<Result<OutputEvent, ApiError>>)>;

struct Watch<'a> {
    client: &'a dyn RunClient,
    run: RunId,
    show: &'a mut dyn RunShow,
    seen: &'a mut Seen,
    ids: HashMap<String, JobId>,
    /// The output of all attempts that are being shown.
    outputs: SelectAll<Output<'a>>,
    /// The jobs they belong to.
    open: HashMap<String, Open>,
    /// Jobs that began lately, and when their output is to be looked at, if it isn't yet.
    begun: VecDeque<(Instant, String, u32)>,
}

/// A job whose output is being shown.
#[derive(Default)]
struct Open {
    attempt: u32,
    /// Its output isn't looked at yet.
    unread: bool,
    step: Option<StepAt>,
    stdout: PartialLines,
    stderr: PartialLines,
    marks: PartialLines,
    /// What is to be shown when its output has ended.
    after: Vec<RunEventKind>,
}

impl<'a> Watch<'a> {
    async fn follow(&mut self, mut events: RunEventStream) -> Result<(), WatchEnd> {
        let mut tick = tokio::time::interval(REDRAW);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut run_ended = None;
        loop {
            if let (Some(state), true) = (run_ended, self.open.is_empty()) {
                return self.tell(Happening::RunEnded { state });
            }
            let due = self.begun.front().map(|(due, ..)| *due);
            tokio::select! {
                biased;
                Some((job, event)) = self.outputs.next(), if !self.outputs.is_empty() => {
                    self.output(job, event).await?;
                }
                event = events.next(), if run_ended.is_none() => match event {
                    Some(Ok(RunEvent { kind: RunEventKind::RunEnded { state }, .. })) => run_ended = Some(state),
                    Some(Ok(event)) => self.event(event.kind).await?,
                    Some(Err(error)) => return Err(WatchEnd::Api(error)),
                    None => {
                        let text = "the run's events broke off; ask again with `executr runs`";
                        return Err(WatchEnd::Api(ApiError::new(executr_api::ErrorCode::Unavailable, text)));
                    }
                },
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if let Some((_, job, attempt)) = self.begun.pop_front() {
                        self.open_output(&job, attempt);
                    }
                }
                _ = tick.tick() => self.show.tick(),
            }
        }
    }

    fn tell(&mut self, happening: Happening) -> Result<(), WatchEnd> {
        self.show.show(&happening).map_err(WatchEnd::Unseen)
    }

    async fn event(&mut self, kind: RunEventKind) -> Result<(), WatchEnd> {
        // What follows on output comes after it.
        if let RunEventKind::JobStarted { job, .. }
        | RunEventKind::JobRetrying { job, .. }
        | RunEventKind::JobEnded { job, .. } = &kind
            && let Some(open) = self.open.get_mut(job)
        {
            let (job, attempt) = (job.clone(), open.attempt);
            open.after.push(kind);
            self.open_output(&job, attempt);
            return Ok(());
        }
        match kind {
            RunEventKind::RunCreated => {
                let jobs = self.ids.len();
                self.tell(Happening::RunStarted { run: self.run, jobs })
            }
            RunEventKind::JobStarted { job, attempt, .. } => {
                if let Some(tail) = self.seen.tails.get_mut(&job) {
                    tail.clear();
                }
                if self.ids.contains_key(&job) {
                    self.open.insert(job.clone(), Open { attempt, unread: true, ..Open::default() });
                    self.begun.push_back((Instant::now() + PATIENCE, job.clone(), attempt));
                }
                self.tell(Happening::JobStarted { job, attempt })
            }
            RunEventKind::JobRetrying { job, attempt, message } => {
                self.tell(Happening::JobRetrying { job, attempt, message })
            }
            RunEventKind::JobEnded { job, state, exit_code, message, .. } => {
                if state != JobState::Failed {
                    self.seen.tails.remove(&job);
                }
                self.tell(Happening::JobEnded { job, state, exit_code, message })
            }
            RunEventKind::RunCancelling { reason } => self.tell(Happening::Cancelling { reason }),
            RunEventKind::RunEnded { state } => self.tell(Happening::RunEnded { state }),
        }
    }

    /// Looks at an attempt's output from now on, unless that is done already or it is over.
    fn open_output(&mut self, job: &str, attempt: u32) {
        let Some(open) = self.open.get_mut(job).filter(|open| open.attempt == attempt && open.unread) else { return };
        open.unread = false;
        let Some(id) = self.ids.get(job).copied() else { return };
        let (client, name) = (self.client, job.to_owned());
        let follow = OutputFollow { attempt: Some(attempt), offset: 0, follow: true };
        let output = stream::once(client.output(id, follow)).try_flatten();
        let named = output.map(Some).chain(stream::once(async { None }));
        self.outputs.push(named.map(move |event| (name.clone(), event)).boxed());
    }

    async fn output(&mut self, job: String, event: Option<Result<OutputEvent, ApiError>>) -> Result<(), WatchEnd> {
        match event {
            Some(Ok(OutputEvent::Chunk(chunk))) => {
                for record in chunk.records.iter() {
                    self.record(&job, record)?;
                }
                Ok(())
            }
            Some(Ok(OutputEvent::Attempt(_) | OutputEvent::End(_))) => Ok(()),
            Some(Err(error)) => Err(WatchEnd::Api(error)),
            None => {
                self.flush(&job)?;
                let after = self.open.remove(&job).map(|open| open.after).unwrap_or_default();
                for kind in after {
                    // The first may begin another attempt, after which the others come.
                    Box::pin(self.event(kind)).await?;
                }
                Ok(())
            }
        }
    }

    fn record(&mut self, job: &str, record: Record) -> Result<(), WatchEnd> {
        let Some(open) = self.open.get_mut(job) else { return Ok(()) };
        match record {
            Record::Gap(bytes) => self.tell(Happening::Gap { job: job.to_owned(), bytes }),
            Record::Data { stream: Stream::Mark, bytes } => {
                let mut marks = Vec::new();
                open.marks.push(&bytes, |line| marks.extend(serde_json::from_slice::<StepMark>(&line)));
                for mark in marks {
                    self.flush(job)?;
                    if let Some(open) = self.open.get_mut(job) {
                        open.step = Some(StepAt::from(&mark));
                    }
                    self.tell(Happening::Step { job: job.to_owned(), mark })?;
                }
                Ok(())
            }
            Record::Data { stream, bytes } => {
                let lines = if stream == Stream::Stderr { &mut open.stderr } else { &mut open.stdout };
                let mut whole = Vec::new();
                lines.push(&bytes, |line| whole.push(line));
                whole.into_iter().try_for_each(|line| self.line(job, stream, line))
            }
        }
    }

    /// Shows what is there of lines that aren't ended: a step's last, or a prompt's.
    fn flush(&mut self, job: &str) -> Result<(), WatchEnd> {
        let Some(open) = self.open.get_mut(job) else { return Ok(()) };
        let rest = [(Stream::Stdout, open.stdout.flush()), (Stream::Stderr, open.stderr.flush())];
        for (stream, line) in rest {
            if let Some(line) = line {
                self.line(job, stream, line)?;
            }
        }
        Ok(())
    }

    fn line(&mut self, job: &str, stream: Stream, text: Vec<u8>) -> Result<(), WatchEnd> {
        self.seen.tails.entry(job.to_owned()).or_default().push(&text);
        let step = self.open.get(job).and_then(|open| open.step.clone());
        self.tell(Happening::Line { job: job.to_owned(), step, stream, text })
    }
}
