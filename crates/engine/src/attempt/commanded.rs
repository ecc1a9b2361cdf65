//! An attempt behind a command of its file's own, which starts an agent.

use std::path::Path;
use std::sync::Arc;

use executr_executors::command::{CommandOptions, CommandWorkspace, Given};
use executr_executors::contract::{JobPlan, Sandbox};
use executr_spec::{ExecutorKind, JobSpec};

use super::Attempt;
use super::steps::Progress;
use crate::environment::{self, Surroundings};
use crate::verdict::StepVerdict;

/// The settings of a job's command.
fn options(spec: &JobSpec) -> Result<CommandOptions, StepVerdict> {
    let choice = spec.workflow.as_deref().map(|workflow| &workflow.executor);
    let settings = choice.map(|choice| choice.options.clone()).unwrap_or_default();
    serde_json::from_value(settings).map_err(|error| {
        let name = choice.map(|choice| choice.name.as_str()).unwrap_or_default();
        StepVerdict::failed(format!("executor `{name}`: {error}"), false)
    })
}

/// Whether the job may bring its command.
pub(super) fn check(spec: &JobSpec, allowed: bool) -> Result<(), StepVerdict> {
    options(spec)?;
    if allowed {
        return Ok(());
    }
    let message = "this worker runs no jobs behind commands of their own; start it with `--allow command`";
    Err(StepVerdict::failed(message, true))
}

impl Attempt<'_> {
    /// Whether the job runs behind a command.
    pub(super) fn is_commanded(&self) -> bool {
        self.spec.workflow.as_ref().is_some_and(|workflow| workflow.executor.kind == ExecutorKind::Command)
    }

    pub(super) async fn run_commanded(&mut self, plan: JobPlan) -> Progress {
        match self.commanded(plan).await {
            Ok(mut sandbox) => self.run_and_leave(sandbox.as_mut()).await,
            Err(verdict) => Progress::of(None, verdict),
        }
    }

    async fn commanded(&mut self, plan: JobPlan) -> Result<Box<dyn Sandbox>, StepVerdict> {
        let options = options(self.spec)?;
        let given = Given {
            run_id: self.run.map(|run| run.run.to_string()).unwrap_or_default(),
            job_id: self.fence.job.to_string(),
            job_name: self.spec.workflow.as_ref().map(|workflow| workflow.name.clone()).unwrap_or_default(),
            attempt: self.fence.attempt,
        };
        // It is no step: it has what is the worker's own, and what the job was given of that.
        let around = Surroundings {
            host: &self.engine.host,
            inherit: self.engine.policy.inherit,
            fence: &self.fence,
            directory: Path::new("/"),
            is_sandbox: false,
            is_hooked: true,
            place: None,
            of_run: None,
        };
        let env = environment::of_step(self.spec, around, []);
        let machine = Arc::clone(self.engine.workspaces.machine());
        let workspace = CommandWorkspace::new(self.engine.command.clone(), machine, options, given, env);
        self.room(&workspace, plan, self.job_deadline()).await
    }
}

#[cfg(test)]
mod tests {
    use executr_spec::workflow::{ExecutorChoice, WorkflowJob};
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_worker_that_was_told_to_runs_commands() {
        let spec = |options| {
            let executor = ExecutorChoice { kind: ExecutorKind::Command, name: "box".to_owned(), options };
            let workflow = WorkflowJob { executor, ..WorkflowJob::default() };
            JobSpec { workflow: Some(Box::new(workflow)), ..JobSpec::new(Vec::new()) }
        };
        let refused = |spec: &JobSpec, allowed| check(spec, allowed).expect_err("it may not").message.expect("why");
        let plain = spec(json!({"argv": ["bwrap", "{agent}"]}));
        assert!(check(&plain, true).is_ok());
        assert!(refused(&plain, false).contains("--allow command"));
        let wrong = refused(&spec(json!({"arg": []})), true);
        assert!(wrong.contains("box") && wrong.contains("argv"), "{wrong}");
    }
}
