//! One attempt, from its lease to its result.

use std::collections::BTreeMap;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use executr_api::output::Stream;
use executr_api::{AttemptResult, Fence, Lease, Outcome, StepOutcome, StepResult, Usage, WorkerApi};
use executr_executors::contract::{
    self, Event, ExecutorError, JobPlan, Limits, Place, Program, Sandbox, StartFailed, StepPlan, Workspace,
};
use executr_spec::{BinaryStep, JobSpec, Step, StepCommand};
use tokio::time::Instant;

use crate::binary_cache::{BinaryCache, CachedBinary};
use crate::environment::{self, Surroundings};
use crate::host::{HostContext, Inherit, Policy};
use crate::output::{OutputFeed, OutputOptions, Tail};
use crate::stop::{Stop, StopReason};
use crate::verdict::{self, Ending, StepVerdict, TimeLimit};

/// Runs attempts, any number at a time.
pub struct Engine {
    /// Where they run.
    pub workspace: Arc<dyn Workspace>,
    /// Where their binaries come from.
    pub cache: BinaryCache,
    /// Where their output goes.
    pub api: Arc<dyn WorkerApi>,
    /// What is known of this machine.
    pub host: HostContext,
    /// What they may ask for.
    pub policy: Policy,
    /// Bounds on their output.
    pub output: OutputOptions,
    /// How long processes may take to end by themselves after SIGTERM.
    pub kill_grace: Duration,
}

/// An attempt that ended. Nothing of it runs any more.
#[derive(Debug)]
pub struct FinishedAttempt {
    /// What to report.
    pub result: AttemptResult,
    /// Output to append before that.
    pub tail: Option<Tail>,
    /// Why it was ended from outside, if it was. Its result is wanted only when it was [`StopReason::Cancelled`].
    pub stopped: Option<StopReason>,
}

impl Engine {
    /// Runs the attempt of `lease` to its end, whatever that is.
    pub async fn run(&self, lease: &Lease, stop: &mut Stop) -> FinishedAttempt {
        let started = Instant::now();
        let spec = match lease.spec.read() {
            Ok(spec) => spec,
            Err(error) => {
                let message = format!("this worker can't read the job: {error}; is it older than the server?");
                return refused(lease.fence, StepVerdict::failed(message, true), started);
            }
        };
        if let Err(verdict) = self.check(&spec) {
            return refused(lease.fence, verdict, started);
        }
        let token: Arc<str> = lease.token.as_str().into();
        let feed = OutputFeed::new(Arc::clone(&self.api), lease.fence, Arc::clone(&token), &self.output);
        let attempt = Attempt { engine: self, fence: lease.fence, token, spec: &spec, started, stop, feed };
        attempt.run().await
    }

    /// Whether the job asks only for what it may have here. The coordinator sends no other; this doesn't depend on it.
    fn check(&self, spec: &JobSpec) -> Result<(), StepVerdict> {
        spec.validate().map_err(|error| StepVerdict::failed(format!("the job can't be run: {error}"), false))?;
        if spec.directory.is_some() && !self.policy.directory {
            let message = "this worker doesn't run jobs in a `directory`; start it with `--allow directory`";
            return Err(StepVerdict::failed(message, true));
        }
        if !spec.inherit.is_empty() && self.policy.inherit == Inherit::Nothing {
            let message = "this worker hands on no variables; start it with `--allow inherit`";
            return Err(StepVerdict::failed(message, true));
        }
        Ok(())
    }
}

/// An attempt under way.
struct Attempt<'a> {
    engine: &'a Engine,
    fence: Fence,
    token: Arc<str>,
    spec: &'a JobSpec,
    started: Instant,
    stop: &'a mut Stop,
    feed: OutputFeed,
}

/// What all steps came to.
#[derive(Default)]
struct StepsEnd {
    verdict: Option<(usize, StepVerdict)>,
    results: Vec<StepResult>,
    usage: Option<Usage>,
}

impl Attempt<'_> {
    async fn run(mut self) -> FinishedAttempt {
        let plan = JobPlan {
            job: self.fence.job,
            attempt: self.fence.attempt,
            place: self.spec.directory.as_ref().map_or(Place::Sandbox, |path| Place::Directory(path.into())),
            limits: Limits {
                cpu_millis: self.spec.resources.cpu.map_or(0, |cpu| cpu.0),
                memory_bytes: self.spec.resources.memory.map_or(0, |memory| memory.0),
                pids: self.spec.resources.pids.unwrap_or(0),
            },
        };
        let end = match self.engine.workspace.setup_job(plan).await {
            Ok(mut sandbox) => {
                let end = self.run_steps(sandbox.as_mut()).await;
                if let Err(error) = sandbox.cleanup().await {
                    tracing::warn!(job = %self.fence.job, %error, "a job wasn't cleaned up");
                }
                end
            }
            Err(error) => StepsEnd { verdict: Some((0, lost(&error))), ..StepsEnd::default() },
        };
        self.finish(end).await
    }

    async fn run_steps(&mut self, sandbox: &mut dyn Sandbox) -> StepsEnd {
        let count = self.spec.steps.len();
        let mut end = StepsEnd::default();
        for (index, step) in self.spec.steps.iter().enumerate() {
            let name = || step.name.clone().unwrap_or_else(|| (index + 1).to_string());
            if end.verdict.is_some() {
                end.results.push(StepResult {
                    name: name(),
                    outcome: StepOutcome::Skipped,
                    exit_code: None,
                    duration_ms: 0,
                });
                continue;
            }
            let started = Instant::now();
            let (verdict, usage) = self.run_step(sandbox, index, step).await;
            if let Some(usage) = usage {
                end.usage = Some(end.usage.map_or(usage, |before| before.then(usage)));
            }
            if count > 1 {
                end.results.push(StepResult {
                    name: name(),
                    outcome: verdict.outcome,
                    exit_code: verdict.exit_code,
                    duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                });
            }
            if verdict.outcome != StepOutcome::Succeeded {
                end.verdict = Some((index, verdict));
            } else if count == 1 {
                break;
            }
        }
        end
    }

    async fn run_step(&mut self, sandbox: &mut dyn Sandbox, index: usize, step: &Step) -> (StepVerdict, Option<Usage>) {
        let deadline = self.deadline(step);
        let mut binary = None;
        if let StepCommand::Binary(wanted) = &step.command {
            match self.fetch(wanted, deadline).await {
                Ok(cached) => binary = Some(cached),
                Err(verdict) => return (verdict, None),
            }
        }
        let program = program(step, binary.as_ref());
        let around = Surroundings {
            host: &self.engine.host,
            inherit: self.engine.policy.inherit,
            fence: &self.fence,
            directory: sandbox.directory(),
            is_sandbox: self.spec.directory.is_none(),
        };
        let env = environment::of_step(self.spec, step, around);
        // The end of the last step takes the job directory with it, even the end of a start that failed: what earlier
        // steps left there must outlast a start that may have to be repeated.
        let last = index + 1 == self.spec.steps.len() && (index == 0 || binary.is_none());
        let plan = StepPlan { program, env, last };
        let mut busy = 0;
        loop {
            let (verdict, usage) = match self.execute(sandbox, plan.clone(), deadline).await {
                Ok(StepEnd::Ended(verdict, usage)) => (verdict, Some(usage)),
                Ok(StepEnd::NotStarted(failed))
                    if is_busy(&failed) && busy < BUSY_TRIES && (index == 0 || binary.is_some()) =>
                {
                    busy += 1;
                    tokio::time::sleep(BUSY_WAIT).await;
                    continue;
                }
                Ok(StepEnd::NotStarted(failed)) => (verdict::of_failed_start(&failed), None),
                Err(error) => (lost(&error), None),
            };
            return (verdict, usage);
        }
    }

    /// When the step's time is over, and whose time that is.
    fn deadline(&self, step: &Step) -> Option<(Instant, TimeLimit)> {
        let of_step = step.timeout.map(|limit| (Instant::now() + limit.0, TimeLimit::Step(limit.0)));
        let of_job = self.spec.timeout.map(|limit| (self.started + limit.0, TimeLimit::Job(limit.0)));
        // With a single step both mean the same to who reads it.
        let of_job = match of_job {
            Some((at, TimeLimit::Job(limit))) if self.spec.steps.len() == 1 => Some((at, TimeLimit::Step(limit))),
            other => other,
        };
        [of_step, of_job].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    async fn fetch(
        &mut self,
        binary: &BinaryStep,
        deadline: Option<(Instant, TimeLimit)>,
    ) -> Result<CachedBinary, StepVerdict> {
        if let Some(order) = self.stop.order() {
            return Err(StepVerdict::ended_early(Ending::Stopped(order.reason)));
        }
        let fetching = self.engine.cache.fetch(binary, &self.engine.api, &self.token);
        tokio::pin!(fetching);
        loop {
            tokio::select! {
                biased;
                fetched = &mut fetching => {
                    return fetched.map_err(|error| StepVerdict::failed(error.to_string(), !error.is_final()));
                }
                order = self.stop.ordered() => {
                    return Err(StepVerdict::ended_early(Ending::Stopped(order.reason)));
                }
                limit = passed(deadline) => return Err(StepVerdict::ended_early(Ending::TimedOut(limit))),
                () = self.feed.work() => {}
            }
        }
    }

    async fn execute(
        &mut self,
        sandbox: &mut dyn Sandbox,
        plan: StepPlan,
        deadline: Option<(Instant, TimeLimit)>,
    ) -> Result<StepEnd, ExecutorError> {
        if let Some(order) = self.stop.order() {
            let verdict = StepVerdict::ended_early(Ending::Stopped(order.reason));
            return Ok(StepEnd::Ended(verdict, NO_USAGE));
        }
        let mut execution = sandbox.execute(plan).await?;
        let mut ending = None;
        loop {
            let running = ending.is_none();
            let event = tokio::select! {
                biased;
                order = self.stop.ordered() => {
                    ending = ending.or(Some(Ending::Stopped(order.reason)));
                    execution.end(order.grace).await?;
                    continue;
                }
                limit = passed(deadline), if running => {
                    ending = Some(Ending::TimedOut(limit));
                    execution.end(self.engine.kill_grace).await?;
                    continue;
                }
                () = self.feed.work() => continue,
                event = execution.next() => event?,
            };
            match event {
                Some(Event::Output { stream, data, .. }) => {
                    let stream = match stream {
                        contract::Stream::Stdout => Stream::Stdout,
                        contract::Stream::Stderr => Stream::Stderr,
                    };
                    self.feed.push(stream, &data);
                }
                Some(Event::Ended(ended)) => {
                    let verdict = verdict::of_end(&ended, ending, self.spec);
                    return Ok(StepEnd::Ended(verdict, verdict::usage(ended.usage)));
                }
                Some(Event::StartFailed(failed)) => return Ok(StepEnd::NotStarted(failed)),
                Some(Event::Started { .. }) => {}
                None => {
                    let verdict = StepVerdict::failed("its end was never told; this is a fault of executr", true);
                    return Ok(StepEnd::Ended(verdict, NO_USAGE));
                }
            }
        }
    }

    async fn finish(self, end: StepsEnd) -> FinishedAttempt {
        let duration = self.started.elapsed();
        let (outcome, exit_code, error_message, retryable) = match end.verdict {
            None => (Outcome::Succeeded, Some(0), None, true),
            Some((index, verdict)) => {
                let outcome = match verdict.outcome {
                    StepOutcome::Succeeded => Outcome::Succeeded,
                    StepOutcome::Cancelled => Outcome::Cancelled,
                    StepOutcome::Failed | StepOutcome::TimedOut | StepOutcome::Skipped => Outcome::Failed,
                };
                let message = verdict.message.map(|message| match outcome {
                    Outcome::Cancelled => message,
                    Outcome::Succeeded | Outcome::Failed | Outcome::Skipped => {
                        verdict::with_step(self.spec, index, &message)
                    }
                });
                (outcome, verdict.exit_code, message, verdict.retryable)
            }
        };
        let mut result = AttemptResult {
            fence: self.fence,
            outcome,
            exit_code,
            error_message,
            retryable,
            usage: end.usage,
            steps: end.results,
            output: None,
            output_bytes: 0,
            duration_us: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
            outputs: BTreeMap::new(),
            artifacts: Vec::new(),
        };
        let ended_first = |reason: &StopReason| *reason == StopReason::NotRenewed && outcome != Outcome::Cancelled;
        let stopped = self.stop.order().map(|order| order.reason).filter(|reason| !ended_first(reason));
        let unwanted = stopped.is_some_and(|reason| reason != StopReason::Cancelled);
        if unwanted {
            return FinishedAttempt { result, tail: None, stopped };
        }
        let output = self.feed.finish().await;
        result.output = output.inline;
        result.output_bytes = output.total;
        FinishedAttempt { result, tail: output.tail, stopped }
    }
}

/// How the execution of a step ended.
enum StepEnd {
    Ended(StepVerdict, Usage),
    NotStarted(StartFailed),
}

const NO_USAGE: Usage = Usage {
    user_us: 0,
    system_us: 0,
    peak_memory_bytes: 0,
    peak_memory_source: executr_api::MemorySource::LargestProcess,
};

/// A program is still open for writing in a process that was being made while the cache wrote it: it closes the file
/// with its own exec, within microseconds.
const BUSY_TRIES: u32 = 100;
const BUSY_WAIT: Duration = Duration::from_millis(5);

fn is_busy(failed: &StartFailed) -> bool {
    let error = std::io::Error::from_raw_os_error(failed.failure.errno);
    error.kind() == std::io::ErrorKind::ExecutableFileBusy
}

/// Waits until the time is over, forever without a limit.
async fn passed(deadline: Option<(Instant, TimeLimit)>) -> TimeLimit {
    match deadline {
        Some((at, limit)) => {
            tokio::time::sleep_until(at).await;
            limit
        }
        None => std::future::pending().await,
    }
}

fn program(step: &Step, binary: Option<&CachedBinary>) -> Program {
    let word = |text: &String| Bytes::copy_from_slice(text.as_bytes());
    match (&step.command, binary) {
        (StepCommand::Argv(argv), _) => Program::Argv(argv.iter().map(word).collect()),
        (StepCommand::Run(script), _) => Program::Script(Bytes::copy_from_slice(script.as_bytes())),
        (StepCommand::Binary(wanted), cached) => {
            use std::os::unix::ffi::OsStrExt;
            let path = cached.map(|cached| Bytes::copy_from_slice(cached.path().as_os_str().as_bytes()));
            Program::Argv(path.into_iter().chain(wanted.args.iter().map(word)).collect())
        }
    }
}

fn lost(error: &ExecutorError) -> StepVerdict {
    StepVerdict::failed(error.to_string(), true)
}

/// An attempt that ended before it began.
fn refused(fence: Fence, verdict: StepVerdict, started: Instant) -> FinishedAttempt {
    let result = AttemptResult {
        fence,
        outcome: Outcome::Failed,
        exit_code: None,
        error_message: verdict.message,
        retryable: verdict.retryable,
        usage: None,
        steps: Vec::new(),
        output: None,
        output_bytes: 0,
        duration_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
        outputs: BTreeMap::new(),
        artifacts: Vec::new(),
    };
    FinishedAttempt { result, tail: None, stopped: None }
}
