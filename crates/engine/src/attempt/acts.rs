//! What the place of a job does by itself, run like steps: `hooks` sets up, restores, saves and cleans up with scripts.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use executr_api::{StepOutcome, WorkspaceId};
use executr_executors::contract::{Act, JobPlan, PutTo, Sandbox, Workspace};
use executr_executors::hooks::HooksOptions;
use tokio::sync::OwnedRwLockReadGuard;
use tokio::time::Instant;

use super::capture::Capture;
use super::execution::{Begin, Deadline, StepEnd};
use super::{Attempt, lost};
use crate::verdict::{self, StepVerdict, TimeLimit};
use crate::workspaces::{CLEANUP, Setup};

/// A job's place in a workspace that others share. While it is held the workspace stays.
pub(super) struct Entered {
    pub(super) sandbox: Box<dyn Sandbox>,
    _in_use: OwnedRwLockReadGuard<()>,
}

impl Attempt<'_> {
    /// Goes into the job's workspace, setting it up when it is the first.
    pub(super) async fn enter(&mut self, plan: JobPlan) -> Result<Entered, StepVerdict> {
        let engine = self.engine;
        let Some(workflow) = self.spec.workflow.as_deref() else {
            return Err(StepVerdict::failed("the job has no settings of an executor", false));
        };
        let options = serde_json::from_value::<Option<HooksOptions>>(workflow.executor.options.clone());
        let options = options
            .map_err(|error| StepVerdict::failed(format!("executor `{}`: {error}", workflow.executor.name), false))?;
        let id = self.workspace_id(&workflow.executor.name);
        let held = engine.workspaces.held(&id);
        self.held = Some(Arc::clone(&held));
        let in_use = self.wait_for(Arc::clone(&held.users).read_owned(), self.job_deadline()).await;
        let in_use = in_use.map_err(StepVerdict::ended_early)?;
        let setup = self.wait_for(held.setup.lock(), self.job_deadline()).await;
        let mut setup = setup.map_err(StepVerdict::ended_early)?;
        let workspace = setup.open(engine.workspaces.machine(), options.unwrap_or_default()).await;
        let workspace = workspace.map_err(|error| lost(&error))?;
        if let (Some(source), None) = (workflow.source, setup.source) {
            let what = "the copy of the repository";
            let tree = self.tree(source, what).await?;
            self.put(&mut *workspace.own().await, &tree, PutTo::JobDirectory, what).await?;
            setup.source = Some(source);
        }
        if !setup.done {
            let mut own = workspace.own().await;
            let Setup { env, done, .. } = &mut *setup;
            *env = self.environment(&mut *own, None, Some(&BTreeMap::new()));
            if let Err(verdict) = self.act(&mut *own, Act::SetUp, env, self.job_deadline()).await {
                self.clean_up(&mut *own, env).await;
                drop(own);
                workspace.cleanup().await;
                // Whoever waits for it, or comes later, begins anew.
                *setup = Setup::default();
                return Err(verdict);
            }
            *done = true;
        }
        drop(setup);
        let sandbox = workspace.setup_job(plan).await.map_err(|error| lost(&error))?;
        Ok(Entered { sandbox, _in_use: in_use })
    }

    pub(super) fn workspace_id(&self, executor: &str) -> WorkspaceId {
        let leased = self.run.and_then(|run| run.workspace.as_ref());
        leased.map_or_else(
            || WorkspaceId {
                run: self.run.map_or(executr_spec::RunId(self.fence.job.0), |run| run.run),
                executor: executor.to_owned(),
                generation: 0,
            },
            |leased| leased.id.clone(),
        )
    }

    /// Has the place do something.
    ///
    /// # Errors
    /// When that failed, with its place and line.
    pub(super) async fn act(
        &mut self,
        sandbox: &mut dyn Sandbox,
        act: Act<'_>,
        env: &[Bytes],
        deadline: Deadline,
    ) -> Result<(), StepVerdict> {
        let ended = self.execute(sandbox, Begin::Act(act, env), deadline, &mut Capture::default()).await;
        let mut verdict = match ended {
            Ok(StepEnd::Nothing) => return Ok(()),
            Ok(StepEnd::Ended(verdict, _)) if verdict.outcome == StepOutcome::Succeeded => return Ok(()),
            Ok(StepEnd::Ended(verdict, _)) => verdict,
            Ok(StepEnd::NotStarted(failed)) => verdict::of_failed_start(&failed),
            Err(error) => return Err(lost(&error)),
        };
        explain(sandbox, &mut verdict);
        Err(verdict)
    }

    /// Has the place do what it does before the first step.
    pub(super) async fn set_up(&mut self, sandbox: &mut dyn Sandbox) -> Result<(), StepVerdict> {
        let env = self.environment(sandbox, None, Some(&BTreeMap::new()));
        self.act(sandbox, Act::SetUp, &env, self.job_deadline()).await
    }

    /// Has the place do something with an artifact.
    pub(super) async fn pass(&mut self, sandbox: &mut dyn Sandbox, act: Act<'_>) -> Result<(), StepVerdict> {
        if !self.is_hooked() {
            return Ok(());
        }
        let known = self.known_variables();
        let env = self.environment(sandbox, None, Some(&known));
        self.act(sandbox, act, &env, self.job_deadline()).await
    }

    /// Has the place do what it does at the end, whatever happened before and whatever is ordered meanwhile.
    pub(super) async fn clean_up(&mut self, sandbox: &mut dyn Sandbox, env: &[Bytes]) {
        self.cleaning = true;
        let deadline = Some((Instant::now() + CLEANUP, TimeLimit::Aftermath(CLEANUP)));
        if let Err(verdict) = self.act(sandbox, Act::CleanUp, env, deadline).await {
            let problem = self.masking.text(verdict.message.unwrap_or_default());
            tracing::warn!(job = %self.fence.job, problem, "cleaning up failed");
        }
        self.cleaning = false;
    }

    /// Whether the job's place does something by itself.
    pub(super) fn is_hooked(&self) -> bool {
        self.spec.workflow.as_ref().is_some_and(|workflow| workflow.executor.kind == executr_spec::ExecutorKind::Hooks)
    }

    /// What hooks and their steps are told besides: whether there is a copy of the repository, and who shares the workspace.
    /// Names that scripts for the original know are there as well.
    pub(super) fn tell_hooks(&self, env: &mut Vec<Bytes>) {
        let copy = self.spec.workflow.as_ref().is_some_and(|workflow| workflow.source.is_some()).to_string();
        let id = self.run.map(|run| run.run.to_string()).unwrap_or_default();
        let leased = self.run.and_then(|run| run.workspace.as_ref());
        let (mut jobs, mut steps) = (String::new(), String::new());
        for job in leased.iter().flat_map(|leased| &leased.jobs) {
            jobs.push_str(&format!("{}\n", job.name));
            job.steps.iter().for_each(|step| steps.push_str(&format!("{}\t{step}\n", job.name)));
        }
        for (name, value) in [
            ("EXECUTR_COPY_REPO", &copy),
            ("NIXACTIONS_COPY_REPO", &copy),
            ("WORKFLOW_ID", &id),
            ("EXECUTR_WORKSPACE_JOBS", &jobs),
            ("EXECUTR_WORKSPACE_STEPS", &steps),
        ] {
            let beginning = format!("{name}=");
            // Who declares one means it.
            if !env.iter().any(|variable| variable.starts_with(beginning.as_bytes())) {
                env.push(Bytes::from(beginning + value));
            }
        }
    }
}

/// Says where in its place something failed, if that is known.
pub(super) fn explain(sandbox: &mut dyn Sandbox, verdict: &mut StepVerdict) {
    if let (false, Some(place)) = (verdict.is_success(), sandbox.take_failure()) {
        let message = verdict.message.take().unwrap_or_default();
        verdict.message = Some(format!("{place}: {message}"));
    }
}
