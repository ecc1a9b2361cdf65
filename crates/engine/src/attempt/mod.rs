//! One attempt, from its lease to its result.
//!
//! - [`steps`]: which steps run, and what they come to together;
//! - [`tries`]: one step's tries and the waits between;
//! - [`execution`]: one process tree: output, limits, orders to stop;
//! - [`hosted`]: a place on another host;
//! - [`acts`]: what the job's place does by itself; [`contained`]: a place in a container; [`commanded`]: one behind
//!   a command; [`imaged`]: a step's own container on the job directory;
//! - [`artifacts`], [`selected`], [`files`], [`modified`]: what goes into the job directory, and what comes out of it;
//! - [`variables`], [`handover`]: what is declared, and what steps hand over in files;
//! - [`sources`]: asking for variables that aren't written in the file;
//! - [`scope`], [`wanted`], [`capture`]: what expressions see, and what is kept for them;
//! - [`marks`]: what is told of steps within the output.

mod acts;
mod artifacts;
mod capture;
mod commanded;
mod contained;
#[cfg(test)]
mod early;
mod execution;
mod files;
mod handover;
mod hosted;
mod imaged;
mod marks;
mod modified;
mod scope;
mod selected;
mod sources;
mod steps;
mod tries;
mod variables;
mod wanted;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use executr_api::{AttemptResult, Fence, Lease, Outcome, RunContext, WorkerApi};
use executr_executors::command::CommandHost;
use executr_executors::contract::{ExecutorError, JobPlan, Limits, Place, Program, Sandbox, StepPlan, Workspace};
use executr_executors::oci::OciHost;
use executr_executors::ssh::SshHosts;
use executr_expressions::Status;
use executr_spec::{ExecutorKind, JobSpec};
use futures_util::FutureExt as _;
use tokio::time::Instant;

use crate::binary_cache::BinaryCache;
use crate::consoles::{Consoles, Here};
use crate::host::{HostContext, Inherit, Policy};
use crate::kept::{KeptDirectories, KeptDirectory, KeptNote};
use crate::masking::OutputMasking;
use crate::output::{OutputFeed, OutputOptions, Tail};
use crate::providers::Providers;
use crate::stop::{Stop, StopReason};
use crate::trees::Trees;
use crate::verdict::{self, Ending, StepVerdict};
use crate::workspaces::{Held, Workspaces};
use execution::{Deadline, passed};
use files::FileBlobs;
use scope::StepRecord;
use steps::Progress;
use variables::Variables;
use wanted::Wanted;

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
    /// How long the steps together may take that run after the job was cancelled, or its time was over.
    pub aftermath: Duration,
    /// Where variables come from that are not written in the file.
    pub providers: Providers,
    /// Repositories and artifacts.
    pub trees: Trees,
    /// Where jobs run whose place is set up for their run.
    pub workspaces: Workspaces,
    /// Where containers come from.
    pub oci: Arc<OciHost>,
    /// What executors' own commands find here.
    pub command: CommandHost,
    /// The hosts that jobs run on.
    pub hosts: Arc<SshHosts>,
    /// Where directories of jobs go at their end, when they aren't removed.
    pub kept: Option<KeptDirectories>,
    /// Commands that people run in sandboxes, beside their steps.
    pub consoles: Consoles,
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
        let _here = lease.run.as_deref().map(|run| self.providers.hold(run.run.0));
        let token: Arc<str> = lease.token.as_str().into();
        let feed = OutputFeed::new(Arc::clone(&self.api), lease.fence, Arc::clone(&token), &self.output);
        let attempt = Attempt {
            engine: self,
            fence: lease.fence,
            token,
            spec: &spec,
            run: lease.run.as_deref(),
            started,
            stop,
            feed,
            masking: OutputMasking::default(),
            secrets: BTreeSet::new(),
            held: None,
            here: self.consoles.enter(lease.fence.job),
            variables: None,
            records: Vec::new(),
            file_blobs: FileBlobs::default(),
            cancelled: false,
            modified_begun: false,
            cleaning: false,
            aftermath: None,
        };
        attempt.run().await
    }

    /// Whether the job asks only for what it may have here. The coordinator sends no other; this doesn't depend on it.
    fn check(&self, spec: &JobSpec) -> Result<(), StepVerdict> {
        spec.validate().map_err(|error| StepVerdict::failed(format!("the job can't be run: {error}"), false))?;
        if spec.directory.is_some() && !self.policy.directory {
            let message = "this worker doesn't run jobs in a `directory`; start it with `--allow directory`";
            return Err(StepVerdict::failed(message, true));
        }
        let kind = spec.workflow.as_ref().map_or(ExecutorKind::Local, |workflow| workflow.executor.kind);
        if kind == ExecutorKind::Hooks && !self.policy.hooks {
            let message = "this worker runs no hooks; start it with `--allow hooks`";
            return Err(StepVerdict::failed(message, true));
        }
        if kind == ExecutorKind::Oci || spec.steps.iter().any(|step| step.image.is_some()) {
            contained::check(spec, self.policy.containers, &self.policy.container_rules)?;
        }
        if kind == ExecutorKind::Command {
            commanded::check(spec, self.policy.command)?;
        }
        if kind == ExecutorKind::Ssh {
            hosted::check(spec, self.policy.hosts)?;
        }
        if !spec.inherit.is_empty() && self.policy.inherit == Inherit::Nothing {
            let message = "this worker hands on no variables; start it with `--allow inherit`";
            return Err(StepVerdict::failed(message, true));
        }
        if let Some(workflow) = &spec.workflow {
            let inputs = workflow.inputs.iter().map(|input| &input.name);
            // They become names of directories.
            let is_name = |name: &str| artifacts::within(name).is_some_and(|path| path.components().count() == 1);
            if let Some(name) =
                inputs.chain(workflow.outputs.iter().map(|output| &output.name)).find(|name| !is_name(name))
            {
                let message = format!("`{}` can't be an artifact's name; leave out `/` and `..`", name.escape_debug());
                return Err(StepVerdict::failed(message, false));
            }
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
    /// Of a job of a run.
    run: Option<&'a RunContext>,
    started: Instant,
    stop: &'a mut Stop,
    feed: OutputFeed,
    masking: OutputMasking,
    /// Values that must not be seen outside.
    secrets: BTreeSet<String>,
    /// The workspace that others share, in which it is.
    held: Option<Arc<Held>>,
    /// Where consoles find it.
    here: Here,
    /// What is declared, in jobs of workflows.
    variables: Option<Variables>,
    /// The steps that are over.
    records: Vec<StepRecord>,
    file_blobs: FileBlobs,
    /// The job was asked to stop, and what ran then was ended.
    cancelled: bool,
    /// What was there before the steps was noted.
    modified_begun: bool,
    /// What runs now cleans up, and no order ends it.
    cleaning: bool,
    /// Since the job was cancelled or its time was over: until when what still runs may run.
    aftermath: Deadline,
}

impl Attempt<'_> {
    async fn run(mut self) -> FinishedAttempt {
        let plan = self.plan();
        let progress = if self.is_hooked() {
            self.run_hooked(plan).await
        } else if self.is_contained() {
            self.run_contained(plan).await
        } else if self.is_commanded() {
            self.run_commanded(plan).await
        } else if self.is_hosted() {
            self.run_hosted(plan).await
        } else {
            match self.engine.workspace.setup_job(plan).await {
                Ok(mut sandbox) => self.run_and_leave(sandbox.as_mut()).await,
                Err(error) => Progress::of(Some(0), lost(&error)),
            }
        };
        self.finish(progress).await
    }

    /// What the attempt asks of its place.
    fn plan(&self) -> JobPlan {
        JobPlan {
            job: self.fence.job,
            attempt: self.fence.attempt,
            place: self.spec.directory.as_ref().map_or(Place::Sandbox, |path| Place::Directory(path.into())),
            limits: Limits {
                cpu_millis: self.spec.resources.cpu.map_or(0, |cpu| cpu.0),
                memory_bytes: self.spec.resources.memory.map_or(0, |memory| memory.0),
                pids: self.spec.resources.pids.unwrap_or(0),
            },
        }
    }

    /// In a place of the job's own, which is cleaned up or kept at the end.
    async fn run_and_leave(&mut self, sandbox: &mut dyn Sandbox) -> Progress {
        let kept = self.keep(sandbox);
        let progress = self.run_in(sandbox).await;
        let note = kept.as_ref().and_then(|(_, kept)| self.note_for(sandbox.directory(), &kept.path));
        self.here.over().await;
        self.leave(sandbox).await;
        if let Some((directories, directory)) = kept.filter(|(_, kept)| kept.path.exists()) {
            directories.note(directory, note.as_ref());
        }
        progress
    }

    /// What is noted of a directory that goes from `from` to `to`.
    fn note_for(&self, from: &Path, to: &Path) -> Option<KeptNote> {
        let env = self.here.environment()?;
        let (from, to) = (from.to_str()?, to.to_str()?);
        let kind = self.spec.workflow.as_ref().map_or(ExecutorKind::Local, |workflow| workflow.executor.kind);
        let mut note = KeptNote {
            elsewhere: match kind {
                ExecutorKind::Oci => Some("a container".to_owned()),
                ExecutorKind::Command => Some("the place its executor's command led to".to_owned()),
                _ => None,
            },
            ..KeptNote::default()
        };
        for variable in &env {
            let variable = String::from_utf8_lossy(variable);
            let Some((name, value)) = variable.split_once('=') else { continue };
            let is_secret = self.secrets.contains(value) || self.masking.text(value.to_owned()) != value;
            if is_secret || value.contains(char::REPLACEMENT_CHARACTER) {
                note.left_out.push(name.to_owned());
            } else {
                note.env.insert(name.to_owned(), value.replace(from, to));
            }
        }
        Some(note)
    }

    /// As in any other place, with what that does by itself around it.
    async fn run_hooked(&mut self, plan: JobPlan) -> Progress {
        let mut entered = match self.enter(plan).await {
            Ok(entered) => entered,
            Err(verdict) => return Progress::of(None, verdict),
        };
        let sandbox = entered.sandbox.as_mut();
        let running = async {
            match self.set_up(sandbox).await {
                Ok(()) => self.run_in(sandbox).await,
                Err(verdict) => Progress::of(None, verdict),
            }
        };
        // What was set up is cleaned up, whatever became of the rest: of a fault of ours too.
        let progress = AssertUnwindSafe(running).catch_unwind().await;
        self.here.over().await;
        let known = self.known_variables();
        let env = self.environment(sandbox, None, Some(&known));
        self.clean_up(sandbox, &env).await;
        self.leave(sandbox).await;
        progress.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Has the job's directory stay, where that is wanted.
    fn keep(&self, sandbox: &mut dyn Sandbox) -> Option<(KeptDirectories, KeptDirectory)> {
        let directories = self.engine.kept.clone()?;
        let workflow = self.spec.workflow.as_ref();
        let job = workflow.map_or_else(|| self.fence.job.to_string(), |workflow| workflow.name.clone());
        let attempt = self.fence.attempt;
        match directories.place(&job, attempt) {
            Ok(path) => {
                sandbox.keep_directory(&path);
                Some((directories, KeptDirectory { job, attempt, path }))
            }
            Err(error) => {
                let root = directories.root().display();
                tracing::warn!(%job, %error, "the job's directory can't be kept below {root}");
                None
            }
        }
    }

    async fn leave(&mut self, sandbox: &mut dyn Sandbox) {
        if let Err(error) = sandbox.cleanup().await {
            tracing::warn!(job = %self.fence.job, %error, "a job wasn't cleaned up");
        }
    }

    async fn run_in(&mut self, sandbox: &mut dyn Sandbox) -> Progress {
        let wanted = Wanted::of(self.spec);
        self.here.in_sandbox(sandbox.consoles());
        match self.prepare(sandbox).await {
            Ok(true) => {
                let mut progress = self.run_steps(sandbox, &wanted).await;
                self.save_modified(sandbox, &mut progress).await;
                if progress.outcome() == Outcome::Succeeded {
                    match self.save_outputs(sandbox).await {
                        Ok(artifacts) => progress.artifacts.extend(artifacts),
                        Err(verdict) => progress.verdict = Some((None, verdict)),
                    }
                }
                progress
            }
            Ok(false) => Progress::skipped(),
            Err(verdict) => Progress::of(None, verdict),
        }
    }

    /// Does what comes before the first step; whether the job runs at all.
    async fn prepare(&mut self, sandbox: &mut dyn Sandbox) -> Result<bool, StepVerdict> {
        let Some(workflow) = self.spec.workflow.as_deref() else { return Ok(true) };
        self.place_source(sandbox).await?;
        self.job_variables().await?;
        if let Some(script) = &workflow.condition {
            let known = self.known_variables();
            if self.has_files() {
                let context = scope::context(self.spec, self.run, &known, &self.records, Status::GOOD);
                self.place_files(sandbox, &context).await?;
            }
            let plan = StepPlan {
                program: Program::Script(Bytes::copy_from_slice(script.as_bytes())),
                env: self.environment(sandbox, None, Some(&known)),
                workdir: None,
                last: false,
            };
            let (answer, _usage) = self.ask_shell(sandbox, plan, self.job_deadline()).await;
            if !answer? {
                return Ok(false);
            }
        }
        self.restore_inputs(sandbox).await?;
        Ok(true)
    }

    /// Waits for something that is no process of the job, and goes on sending output meanwhile.
    ///
    /// # Errors
    /// What it was given up for.
    async fn wait_for<F: Future>(&mut self, future: F, deadline: Deadline) -> Result<F::Output, Ending> {
        if let Some(order) = self.urgent_order() {
            return Err(Ending::Stopped(order.reason));
        }
        tokio::pin!(future);
        loop {
            tokio::select! {
                biased;
                output = &mut future => return Ok(output),
                order = self.stop.ordered() => {
                    if self.obeys(&order) {
                        return Err(Ending::Stopped(order.reason));
                    }
                }
                limit = passed(deadline) => return Err(Ending::TimedOut(limit)),
                () = self.feed.work() => {}
            }
        }
    }

    async fn finish(self, progress: Progress) -> FinishedAttempt {
        let duration = self.started.elapsed();
        let outcome = progress.outcome();
        let fails_run = progress.fails_run && outcome == Outcome::Failed;
        let (exit_code, error_message, retryable) = match progress.verdict {
            None => ((outcome == Outcome::Succeeded).then_some(0), None, true),
            Some((index, verdict)) => {
                let message = verdict.message.map(|message| match (outcome, index) {
                    (Outcome::Failed, Some(index)) => verdict::with_step(self.spec, index, &message),
                    _ => message,
                });
                (verdict.exit_code, message.map(|message| self.masking.text(message)), verdict.retryable)
            }
        };
        let outputs = progress.outputs.into_iter().map(|(name, value)| (name, self.masking.text(value))).collect();
        let mut result = AttemptResult {
            fence: self.fence,
            outcome,
            exit_code,
            error_message,
            retryable: retryable && !fails_run,
            fails_run,
            usage: progress.usage,
            steps: progress.results,
            output: None,
            output_bytes: 0,
            duration_us: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
            outputs,
            artifacts: progress.artifacts,
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

fn lost(error: &ExecutorError) -> StepVerdict {
    StepVerdict { place_lost: true, ..StepVerdict::failed(error.to_string(), true) }
}

/// An attempt that ended before it began.
fn refused(fence: Fence, verdict: StepVerdict, started: Instant) -> FinishedAttempt {
    let result = AttemptResult {
        fence,
        outcome: Outcome::Failed,
        exit_code: None,
        error_message: verdict.message,
        retryable: verdict.retryable,
        fails_run: false,
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
