//! One process tree of a step, from its start to its end: output, limits, orders to stop.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use executr_api::output::Stream;
use executr_api::{MemorySource, Usage};
use executr_executors::contract::{self, Act, Event, ExecutorError, Program, Sandbox, StartFailed, StepPlan};
use executr_spec::{BinaryStep, Step, StepCommand};
use tokio::time::Instant;

use super::Attempt;
use super::capture::Capture;
use crate::binary_cache::CachedBinary;
use crate::stop::StopOrder;
use crate::verdict::{self, Ending, StepVerdict, TimeLimit};

/// When a step's time is over, and whose time that is.
pub(super) type Deadline = Option<(Instant, TimeLimit)>;

/// What to start.
pub(super) enum Begin<'a> {
    Step(StepPlan),
    /// What the place does by itself, with this environment.
    Act(Act<'a>, &'a [Bytes]),
}

/// How the execution of a step ended.
pub(super) enum StepEnd {
    /// There was nothing to do.
    Nothing,
    Ended(StepVerdict, Usage),
    NotStarted(StartFailed),
}

const NO_USAGE: Usage =
    Usage { user_us: 0, system_us: 0, peak_memory_bytes: 0, peak_memory_source: MemorySource::LargestProcess };

impl Attempt<'_> {
    /// When a step that starts now has to be over.
    pub(super) fn deadline(&self, step: &Step) -> Deadline {
        let of_step = step.timeout.map(|limit| (Instant::now() + limit.0, TimeLimit::Step(limit.0)));
        [of_step, self.job_deadline()].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// When the whole job has to be over.
    pub(super) fn job_deadline(&self) -> Deadline {
        if self.aftermath.is_some() {
            return self.aftermath;
        }
        let limit = self.spec.timeout?.0;
        let of = if self.spec.steps.len() == 1 { TimeLimit::JobOfOneStep(limit) } else { TimeLimit::Job(limit) };
        Some((self.started + limit, of))
    }

    /// The order to stop, unless it is one that was obeyed before and lets the rest of the steps run.
    pub(super) fn urgent_order(&self) -> Option<StopOrder> {
        self.stop.order().filter(|order| self.obeys(order))
    }

    /// Whether an order ends what runs now.
    pub(super) fn obeys(&self, order: &StopOrder) -> bool {
        !self.cleaning && (order.urgent || !self.cancelled)
    }

    pub(super) async fn fetch(&mut self, binary: &BinaryStep, deadline: Deadline) -> Result<CachedBinary, StepVerdict> {
        let (engine, token) = (self.engine, Arc::clone(&self.token));
        let fetched = self.wait_for(engine.cache.fetch(binary, &engine.api, &token), deadline).await;
        let fetched = fetched.map_err(StepVerdict::ended_early)?;
        fetched.map_err(|error| StepVerdict::failed(error.to_string(), !error.is_final()))
    }

    pub(super) async fn execute(
        &mut self,
        sandbox: &mut dyn Sandbox,
        begin: Begin<'_>,
        deadline: Deadline,
        capture: &mut Capture,
    ) -> Result<StepEnd, ExecutorError> {
        if let Some(order) = self.urgent_order() {
            let verdict = StepVerdict::ended_early(Ending::Stopped(order.reason));
            return Ok(StepEnd::Ended(verdict, NO_USAGE));
        }
        let mut with = None;
        let mut execution = match begin {
            Begin::Step(plan) => {
                with = Some((plan.env.clone(), plan.workdir.clone()));
                sandbox.execute(plan).await?
            }
            Begin::Act(act, env) => match sandbox.act(act, env).await? {
                Some(execution) => execution,
                None => return Ok(StepEnd::Nothing),
            },
        };
        let mut ending = None;
        let end = loop {
            let running = ending.is_none();
            let event = tokio::select! {
                biased;
                order = self.stop.ordered() => {
                    if self.obeys(&order) {
                        ending = ending.or(Some(Ending::Stopped(order.reason)));
                        execution.end(order.grace).await?;
                    }
                    continue;
                }
                limit = passed(deadline), if running => {
                    ending = Some(Ending::TimedOut(limit));
                    execution.end(self.engine.kill_grace).await?;
                    continue;
                }
                () = self.feed.work() => continue,
                () = self.masking.quiet(), if self.masking.waits_for_quiet() => {
                    self.masking.let_go(&mut self.feed);
                    continue;
                }
                event = execution.next() => event?,
            };
            match event {
                Some(Event::Output { stream, data, .. }) => {
                    let stream = match stream {
                        contract::Stream::Stdout => Stream::Stdout,
                        contract::Stream::Stderr => Stream::Stderr,
                    };
                    capture.take(stream, &data);
                    self.masking.push(stream, &data, &mut self.feed);
                }
                Some(Event::Ended(ended)) => {
                    let verdict = verdict::of_end(&ended, ending, self.spec);
                    break StepEnd::Ended(verdict, verdict::usage(ended.usage));
                }
                Some(Event::StartFailed(failed)) => break StepEnd::NotStarted(failed),
                Some(Event::Started { .. }) => {
                    if let Some((env, workdir)) = with.take() {
                        self.here.runs(env, workdir);
                    }
                }
                Some(Event::InputTaken { .. }) => {}
                None => {
                    let verdict = StepVerdict::failed("its end was never told; this is a fault of executr", true);
                    break StepEnd::Ended(verdict, NO_USAGE);
                }
            }
        };
        self.masking.end(&mut self.feed);
        Ok(end)
    }
}

/// A program is still open for writing in a process that was being made while the cache wrote it: it closes the file
/// with its own exec, within microseconds.
pub(super) fn is_busy(failed: &StartFailed) -> bool {
    let error = std::io::Error::from_raw_os_error(failed.failure.errno);
    error.kind() == std::io::ErrorKind::ExecutableFileBusy
}

/// Waits until the time is over, forever without a limit.
pub(super) async fn passed(deadline: Deadline) -> TimeLimit {
    match deadline {
        Some((at, limit)) => {
            tokio::time::sleep_until(at).await;
            limit
        }
        None => std::future::pending().await,
    }
}

pub(super) fn program(command: &StepCommand, binary: Option<&CachedBinary>) -> Program {
    let word = |text: &String| Bytes::copy_from_slice(text.as_bytes());
    match (command, binary) {
        (StepCommand::Argv(argv), _) => Program::Argv(argv.iter().map(word).collect()),
        (StepCommand::Run(script), _) => Program::Script(Bytes::copy_from_slice(script.as_bytes())),
        (StepCommand::Binary(wanted), cached) => {
            let program = cached.map(|cached| cached.path().to_owned()).unwrap_or_default();
            Program::Brought { program, args: wanted.args.iter().map(word).collect() }
        }
    }
}

/// Where a step starts, from the job directory.
///
/// # Errors
/// When it leads out of it.
pub(super) fn workdir(step: &Step) -> Result<Option<PathBuf>, StepVerdict> {
    let Some(workdir) = &step.workdir else { return Ok(None) };
    let path = Path::new(workdir);
    if path.components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir)) {
        return Ok(Some(path.to_owned()));
    }
    let message = format!("its workdir `{workdir}` leads out of the job directory; give a path within it");
    Err(StepVerdict::failed(message, false))
}
