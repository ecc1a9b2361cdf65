//! Which steps run, one after another, and what they come to together.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use executr_api::{Artifact, Outcome, StepOutcome, StepResult, Usage};
use executr_executors::contract::{ExecutorError, Handover, Program, Sandbox, StepPlan};
use executr_expressions::{Status, Template, Verdict, interpolate};
use executr_spec::{BinaryStep, Condition, Step, StepCommand};
use tokio::time::Instant;

use super::capture::Capture;
use super::execution::{Begin, StepEnd, workdir};
use super::marks::name_of;
use super::scope::StepRecord;
use super::tries::{Planned, Tried};
use super::wanted::Wanted;
use super::{Attempt, lost, scope};
use crate::environment::{self, OfRun, Surroundings};
use crate::verdict::{self, Ending, StepVerdict, TimeLimit};

/// The most bytes a job may hand on to those that need it, names and values together.
const MOST_OUTPUTS: usize = 64 << 10;

/// What all steps came to so far.
#[derive(Default)]
pub(super) struct Progress {
    /// The first thing that keeps the job from ending well, and in which step it was.
    pub(super) verdict: Option<(Option<usize>, StepVerdict)>,
    pub(super) results: Vec<StepResult>,
    pub(super) usage: Option<Usage>,
    /// What steps handed on.
    pub(super) outputs: BTreeMap<String, String>,
    /// What was saved of it.
    pub(super) artifacts: Vec<Artifact>,
    /// Something failed that the whole run starts from.
    pub(super) fails_run: bool,
    /// The job's own condition said no.
    skipped: bool,
    /// A step failed, and may not have.
    failed: bool,
    /// Nothing more can be started.
    over: bool,
}

impl Progress {
    /// A job that couldn't begin.
    pub(super) fn of(step: Option<usize>, verdict: StepVerdict) -> Self {
        Self { fails_run: verdict.fails_run, verdict: Some((step, verdict)), ..Self::default() }
    }

    pub(super) fn outcome(&self) -> Outcome {
        match &self.verdict {
            None if self.skipped => Outcome::Skipped,
            None => Outcome::Succeeded,
            Some((_, verdict)) => match verdict.outcome {
                StepOutcome::Succeeded => Outcome::Succeeded,
                StepOutcome::Cancelled => Outcome::Cancelled,
                StepOutcome::Failed | StepOutcome::TimedOut | StepOutcome::Skipped => Outcome::Failed,
            },
        }
    }

    /// A job whose own condition said no.
    pub(super) fn skipped() -> Self {
        Self { skipped: true, ..Self::default() }
    }

    /// Whether nothing more can be had of the job's place.
    pub(super) fn lost_place(&self) -> bool {
        self.verdict.as_ref().is_some_and(|(_, verdict)| verdict.place_lost)
    }

    fn count(&mut self, usage: Option<Usage>) {
        if let Some(usage) = usage {
            self.usage = Some(self.usage.map_or(usage, |before| before.then(usage)));
        }
    }
}

/// What became of a step.
enum Ran {
    Skipped,
    /// It couldn't be tried.
    Refused(StepVerdict),
    Tried(Tried),
}

impl Attempt<'_> {
    pub(super) async fn run_steps(&mut self, sandbox: &mut dyn Sandbox, wanted: &Wanted) -> Progress {
        let spec = self.spec;
        let count = spec.steps.len();
        let mut progress = Progress::default();
        for (index, step) in spec.steps.iter().enumerate() {
            let newly_cancelled = self.look_for_order(&mut progress);
            let started = Instant::now();
            let mut ran =
                if progress.over { Ran::Skipped } else { self.step(sandbox, index, step, &mut progress, wanted).await };
            if let (Ran::Skipped, Some(order), None) = (&ran, newly_cancelled, &progress.verdict) {
                // What would have come next is what was cancelled.
                ran = Ran::Refused(StepVerdict::ended_early(Ending::Stopped(order.reason)));
            }
            let tried = match ran {
                Ran::Skipped => {
                    self.mark_skipped(step, index);
                    progress.results.push(StepResult {
                        name: name_of(step, index),
                        outcome: StepOutcome::Skipped,
                        exit_code: None,
                        duration_ms: 0,
                    });
                    self.records.push(StepRecord::skipped(name_of(step, index)));
                    continue;
                }
                Ran::Refused(verdict) => {
                    self.mark_refused(step, index, &verdict);
                    Tried::refused(verdict)
                }
                Ran::Tried(tried) => tried,
            };
            let mut tried = tried;
            progress.count(tried.usage);
            if let Err(problem) = hand_on(&mut progress.outputs, &tried.outputs)
                && tried.verdict.is_success()
            {
                tried.verdict = StepVerdict::failed(problem, false);
            }
            let verdict = tried.verdict.clone();
            if count > 1 {
                progress.results.push(StepResult {
                    name: name_of(step, index),
                    outcome: verdict.outcome,
                    exit_code: verdict.exit_code,
                    duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                });
                self.record(index, step, tried);
            }
            self.judge(&mut progress, index, step, verdict);
        }
        progress
    }

    /// Obeys an order to stop that came meanwhile, and gives it if it is new.
    fn look_for_order(&mut self, progress: &mut Progress) -> Option<crate::stop::StopOrder> {
        let order = self.stop.order()?;
        progress.over |= order.urgent;
        if self.cancelled {
            return None;
        }
        self.cancelled = true;
        self.begin_aftermath();
        Some(order)
    }

    /// From now on only what is there for it runs, and not for long.
    fn begin_aftermath(&mut self) {
        let limit = self.engine.aftermath;
        self.aftermath = Some((Instant::now() + limit, TimeLimit::Aftermath(limit)));
    }

    /// What a step's end means for the job.
    fn judge(&mut self, progress: &mut Progress, index: usize, step: &Step, verdict: StepVerdict) {
        if verdict.is_success() {
            return;
        }
        let of_job = verdict.timed_out.is_some_and(|limit| !matches!(limit, TimeLimit::Step(_)));
        let own = matches!(verdict.outcome, StepOutcome::Failed | StepOutcome::TimedOut) && !of_job;
        if step.continue_on_error && own && !verdict.place_lost && !verdict.fails_run {
            return;
        }
        progress.fails_run |= verdict.fails_run;
        progress.failed |= verdict.outcome != StepOutcome::Cancelled;
        progress.over |= verdict.place_lost || matches!(verdict.timed_out, Some(TimeLimit::Aftermath(_)));
        if of_job && self.aftermath.is_none() {
            self.begin_aftermath();
        }
        progress.verdict.get_or_insert((Some(index), verdict));
    }

    async fn step(
        &mut self,
        sandbox: &mut dyn Sandbox,
        index: usize,
        step: &Step,
        progress: &mut Progress,
        wanted: &Wanted,
    ) -> Ran {
        match self.decide(step, progress) {
            Ok(true) => {}
            Ok(false) => return Ran::Skipped,
            Err(verdict) => return Ran::Refused(verdict),
        }
        let workdir = match workdir(step) {
            Ok(workdir) => workdir,
            Err(verdict) => return Ran::Refused(verdict),
        };
        let declared = if self.variables.is_none() && step.env_from.is_empty() {
            None
        } else {
            match self.step_variables(step).await {
                Ok(declared) => Some(declared),
                Err(verdict) => return Ran::Refused(verdict),
            }
        };
        if let (true, Some(declared)) = (self.has_files(), &declared) {
            let context = scope::context(self.spec, self.run, declared, &self.records, Status::GOOD);
            if let Err(verdict) = self.place_files(sandbox, &context).await {
                return Ran::Refused(verdict);
            }
        }
        let command = match self.command(step, declared.as_ref()) {
            Ok(command) => command,
            Err(verdict) => return Ran::Refused(verdict),
        };
        if let Condition::Shell(script) = &step.condition {
            let plan = StepPlan {
                program: Program::Script(Bytes::copy_from_slice(script.as_bytes())),
                env: self.environment(sandbox, Some((index, step)), declared.as_ref()),
                workdir: workdir.clone(),
                last: false,
            };
            let (answer, usage) = self.ask_shell(sandbox, plan, self.deadline(step)).await;
            progress.count(usage);
            match answer {
                Ok(true) => {}
                Ok(false) => return Ran::Skipped,
                Err(verdict) => return Ran::Refused(verdict),
            }
        }
        let planned = Planned {
            index,
            step,
            command,
            workdir,
            declared,
            capture: wanted.capture(index),
            last: index + 1 == self.spec.steps.len() && !self.saves_outputs() && !self.wants_modified(),
        };
        if let Err(verdict) = self.begin_modified(sandbox).await {
            return Ran::Refused(verdict);
        }
        if !wanted.looks_after(index) {
            return Ran::Tried(self.tries(sandbox, planned).await);
        }
        if let Err(verdict) = self.note(sandbox).await {
            return Ran::Refused(verdict);
        }
        let mut tried = self.tries(sandbox, planned).await;
        match self.changed(sandbox).await {
            Ok(changed) => tried.changed_files = Some(changed),
            Err(verdict) if tried.verdict.is_success() => tried.verdict = verdict,
            Err(_) => {}
        }
        Ran::Tried(tried)
    }

    /// Whether a step runs, as far as that needs no process.
    fn decide(&self, step: &Step, progress: &Progress) -> Result<bool, StepVerdict> {
        let status = Status {
            success: !progress.failed && !self.cancelled,
            failure: progress.failed,
            cancelled: self.cancelled,
        };
        // Nearly all are one of these, and need nothing looked up.
        Ok(match &step.condition {
            Condition::Success | Condition::Shell(_) => status.success,
            Condition::Failure => status.failure,
            Condition::Always => true,
            Condition::Cancelled => status.cancelled,
            condition @ Condition::Expression(_) => {
                let context = scope::context(self.spec, self.run, &self.known_variables(), &self.records, status);
                let decided = executr_expressions::decide(condition, &context);
                decided.map(|verdict| verdict == Verdict::Run).map_err(|error| {
                    StepVerdict::failed(format!("its condition `{condition}` can't be decided: {error}"), false)
                })?
            }
        })
    }

    /// What a step runs, with the values of expressions in its words. Scripts have none.
    fn command<'s>(
        &self,
        step: &'s Step,
        declared: Option<&BTreeMap<String, String>>,
    ) -> Result<Cow<'s, StepCommand>, StepVerdict> {
        let (words, part) = match &step.command {
            StepCommand::Argv(words) => (words, "argv"),
            StepCommand::Binary(binary) => (&binary.args, "args"),
            StepCommand::Run(_) => return Ok(Cow::Borrowed(&step.command)),
        };
        let Some(declared) = declared.filter(|_| words.iter().any(|word| Template::is_in(word))) else {
            return Ok(Cow::Borrowed(&step.command));
        };
        let context = scope::context(self.spec, self.run, declared, &self.records, Status::GOOD);
        let evaluated = words.iter().enumerate().map(|(at, word)| {
            let wrong =
                |problem: &dyn std::fmt::Display| StepVerdict::failed(format!("{part}[{at}]: {problem}"), false);
            let word = interpolate(word, &context).map_err(|error| wrong(&error))?.into_owned();
            if word.contains('\0') {
                return Err(wrong(&"holds a NUL character"));
            }
            if self.masking.text(word.clone()) != word {
                let text =
                    "would put a secret where every process of the machine sees it; read it from the environment";
                return Err(wrong(&text));
            }
            Ok(word)
        });
        let evaluated = evaluated.collect::<Result<Vec<String>, StepVerdict>>()?;
        Ok(Cow::Owned(match &step.command {
            StepCommand::Binary(binary) => StepCommand::Binary(BinaryStep { args: evaluated, ..binary.clone() }),
            _ => StepCommand::Argv(evaluated),
        }))
    }

    /// Lets a script decide: 0 is yes, 1 is no.
    pub(super) async fn ask_shell(
        &mut self,
        sandbox: &mut dyn Sandbox,
        plan: StepPlan,
        deadline: super::execution::Deadline,
    ) -> (Result<bool, StepVerdict>, Option<Usage>) {
        let (verdict, usage) = match self.execute(sandbox, Begin::Step(plan), deadline, &mut Capture::default()).await {
            Ok(StepEnd::Ended(verdict, usage)) => (verdict, Some(usage)),
            Ok(StepEnd::NotStarted(failed)) => (verdict::of_failed_start(&failed), None),
            Ok(StepEnd::Nothing) => (StepVerdict::failed("nothing was run", false), None),
            Err(error) => (lost(&error), None),
        };
        if let Err(problem) = self.taken(sandbox).await {
            return (Err(StepVerdict::failed(problem, true)), usage);
        }
        let answer = match (verdict.outcome, verdict.exit_code) {
            (StepOutcome::Succeeded, _) => Ok(true),
            (StepOutcome::Failed, Some(1)) => Ok(false),
            (StepOutcome::Failed, _) => {
                let message = verdict.message.map(|message| format!("its condition failed: {message}"));
                Err(StepVerdict { message, ..verdict })
            }
            _ => Err(verdict),
        };
        (answer, usage)
    }

    /// A whole environment; of the job's own condition when no step is given.
    pub(super) fn environment(
        &self,
        sandbox: &mut dyn Sandbox,
        step: Option<(usize, &Step)>,
        declared: Option<&BTreeMap<String, String>>,
    ) -> Vec<Bytes> {
        let (spec, is_hooked) = (self.spec, self.is_hooked());
        let of_run = spec.workflow.as_deref().map(|workflow| OfRun {
            run: self.run.map(|run| run.run.to_string()).unwrap_or_default(),
            workflow: &workflow.workflow,
            job: &workflow.name,
            step: step.map(|(index, step)| name_of(step, index)).unwrap_or_default(),
            variables: sandbox.handover_path(Handover::Variables),
            outputs: sandbox.handover_path(Handover::Outputs),
        });
        let around = Surroundings {
            host: &self.engine.host,
            inherit: self.engine.policy.inherit,
            fence: &self.fence,
            directory: sandbox.directory(),
            is_sandbox: spec.directory.is_none() && !is_hooked,
            is_hooked,
            place: sandbox.variables(),
            of_run: of_run.as_ref(),
        };
        let mut env = match declared {
            Some(declared) => environment::of_step(spec, around, declared),
            None => environment::of_step(spec, around, spec.env.iter().chain(step.iter().flat_map(|(_, s)| &s.env))),
        };
        if is_hooked {
            self.tell_hooks(&mut env);
        }
        env
    }

    /// Lets later expressions see a step that is over.
    fn record(&mut self, index: usize, step: &Step, tried: Tried) {
        let (stdout, stderr) = tried.capture.texts();
        self.records.push(StepRecord {
            outcome: tried.verdict.outcome,
            exit_code: tried.verdict.exit_code,
            outputs: tried.outputs,
            stdout,
            stderr,
            changed_files: tried.changed_files,
            ..StepRecord::skipped(name_of(step, index))
        });
    }

    /// Notes what the job directory holds before a step.
    async fn note(&mut self, sandbox: &mut dyn Sandbox) -> Result<(), StepVerdict> {
        let deadline = self.job_deadline();
        let noted = self.wait_for(sandbox.note(), deadline).await.map_err(StepVerdict::ended_early)?;
        noted.map_err(|error| unseen(&error))
    }

    /// The paths of what came, went or became something else, in order.
    async fn changed(&mut self, sandbox: &mut dyn Sandbox) -> Result<Vec<String>, StepVerdict> {
        let deadline = self.job_deadline();
        let changes = self.wait_for(sandbox.changes(), deadline).await.map_err(StepVerdict::ended_early)?;
        let changes = changes.map_err(|error| unseen(&error))?;
        let mut paths: Vec<String> = changes.told().map(|change| change.path.to_string_lossy().into_owned()).collect();
        paths.sort();
        Ok(paths)
    }

    /// Whether the job directory is needed when the steps are over.
    fn saves_outputs(&self) -> bool {
        self.spec.workflow.as_ref().is_some_and(|workflow| !workflow.outputs.is_empty())
    }
}

/// Adds a step's outputs to the job's.
fn hand_on(all: &mut BTreeMap<String, String>, outputs: &BTreeMap<String, String>) -> Result<(), String> {
    if outputs.is_empty() {
        return Ok(());
    }
    all.extend(outputs.iter().map(|(name, value)| (name.clone(), value.clone())));
    let size: usize = all.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > MOST_OUTPUTS {
        all.clear();
        return Err(format!(
            "the job's outputs take {size} bytes; at most {MOST_OUTPUTS} can be handed on, so hand over files as artifacts"
        ));
    }
    Ok(())
}

fn unseen(error: &ExecutorError) -> StepVerdict {
    if error.is_of_a_lost_place() {
        return lost(error);
    }
    StepVerdict::failed(format!("cannot see what it changes: {error}"), true)
}
