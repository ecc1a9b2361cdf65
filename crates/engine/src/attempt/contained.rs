//! An attempt in a container: its own, or one its run's other jobs are in, too.

use std::collections::BTreeMap;
use std::sync::Arc;

use executr_executors::contract::{ExecutorError, JobPlan, KeeperError, Place, Sandbox, Workspace};
use executr_executors::oci::{Mode, Network, OciOptions, OciWorkspace, is_own_engine};
use executr_spec::{ExecutorKind, JobId, JobSpec};
use tokio::sync::OwnedRwLockReadGuard;
use uuid::Uuid;

use super::execution::Deadline;
use super::steps::Progress;
use super::{Attempt, lost};
use crate::host::Containers;
use crate::verdict::StepVerdict;

/// The settings of a job's containers.
pub(super) fn options(spec: &JobSpec) -> Result<OciOptions, StepVerdict> {
    let choice = spec.workflow.as_deref().map(|workflow| &workflow.executor);
    if let Some(network) = isolation(spec) {
        return Ok(OciOptions::of_machine(network));
    }
    let settings = choice.map(|choice| choice.options.clone()).unwrap_or_default();
    serde_json::from_value(settings).map_err(|error| {
        let name = choice.map(|choice| choice.name.as_str()).unwrap_or_default();
        StepVerdict::failed(format!("executor `{name}`: {error}"), false)
    })
}

/// Whether the job may have the container it wants.
pub(super) fn check(spec: &JobSpec, allowed: Containers) -> Result<(), StepVerdict> {
    let refused = |what: &str, word: &str| {
        Err(StepVerdict::failed(format!("this worker {what}; start it with `--allow {word}`"), true))
    };
    let options = if is_contained(spec) { options(spec)? } else { OciOptions::default() };
    if allowed == Containers::None {
        return refused("runs no containers", "oci");
    }
    if allowed == Containers::Any {
        return Ok(());
    }
    if !options.mounts.is_empty() {
        return refused("mounts nothing of its machine into containers", "oci-host");
    }
    if options.network == Network::Host {
        return refused("gives no container its machine's network", "oci-host");
    }
    if !is_own_engine(options.engine.as_deref()) {
        return refused("uses only its own container engine", "oci-host");
    }
    Ok(())
}

/// Whether a job runs in a container, be it one of this machine's own files.
pub(super) fn is_contained(spec: &JobSpec) -> bool {
    spec.workflow.as_ref().is_some_and(|workflow| workflow.executor.kind == ExecutorKind::Oci)
        || isolation(spec).is_some()
}

/// The network of a job that is kept from this machine by an executor `local`; `None` where it isn't.
fn isolation(spec: &JobSpec) -> Option<Network> {
    let executor = spec.workflow.as_deref().map(|workflow| &workflow.executor)?;
    let is_isolated = executor.kind == ExecutorKind::Local && executor.options.get("isolate")?.as_bool()?;
    let reaches_out = executor.options.get("network").is_some_and(|network| network == "host");
    is_isolated.then_some(if reaches_out { Network::Host } else { Network::None })
}

/// Whether nobody answers in a container any more: somebody has removed it.
fn is_gone(error: &ExecutorError) -> bool {
    matches!(error, ExecutorError::Agent(KeeperError::Call { .. } | KeeperError::Lost))
}

/// A job's place. While it is held, a container that others share stays.
struct Contained {
    sandbox: Box<dyn Sandbox>,
    _in_use: Option<OwnedRwLockReadGuard<()>>,
}

impl Attempt<'_> {
    /// Whether the job runs in a container.
    pub(super) fn is_contained(&self) -> bool {
        is_contained(self.spec)
    }

    pub(super) async fn run_contained(&mut self, plan: JobPlan) -> Progress {
        match self.contained(plan).await {
            Ok(mut contained) => self.run_and_leave(contained.sandbox.as_mut()).await,
            Err(verdict) => Progress::of(None, verdict),
        }
    }

    async fn contained(&mut self, plan: JobPlan) -> Result<Contained, StepVerdict> {
        let options = options(self.spec)?;
        let plan = JobPlan { place: Place::Sandbox, ..plan };
        if options.mode == Mode::Isolated {
            let mut labels = self.labels();
            labels
                .extend(self.spec.workflow.as_ref().map(|workflow| ("executr.name".to_owned(), workflow.name.clone())));
            let workspace = self.open(options, labels, self.job_deadline()).await?;
            let sandbox = self.room(workspace.as_ref(), plan, self.job_deadline()).await?;
            return Ok(Contained { sandbox, _in_use: None });
        }
        let workflow = self.spec.workflow.as_deref();
        let id = self.workspace_id(workflow.map(|workflow| workflow.executor.name.as_str()).unwrap_or_default());
        let held = self.engine.workspaces.held(&id);
        let in_use = self.wait_for(Arc::clone(&held.users).read_owned(), self.job_deadline()).await;
        let in_use = in_use.map_err(StepVerdict::ended_early)?;
        let setup = self.wait_for(held.setup.lock(), self.job_deadline()).await;
        let mut setup = setup.map_err(StepVerdict::ended_early)?;
        if let Some(workspace) = setup.container.clone() {
            match self.wait_for(workspace.setup_job(plan.clone()), self.job_deadline()).await {
                Ok(Err(error)) if is_gone(&error) => {
                    tracing::warn!(run = %id.run, executor = %id.executor, %error, "a container is lost; there will be another");
                    setup.container = None;
                    workspace.cleanup().await;
                }
                sandbox => {
                    let sandbox = sandbox.map_err(StepVerdict::ended_early)?.map_err(|error| lost(&error))?;
                    return Ok(Contained { sandbox, _in_use: Some(in_use) });
                }
            }
        }
        let workspace = self.open(options, self.labels(), self.job_deadline()).await?;
        setup.container = Some(Arc::clone(&workspace));
        drop(setup);
        let sandbox = self.room(workspace.as_ref(), plan, self.job_deadline()).await?;
        Ok(Contained { sandbox, _in_use: Some(in_use) })
    }

    /// What containers of the job's executor are marked with.
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        labels.extend(self.run.map(|run| ("executr.run".to_owned(), run.run.to_string())));
        if let Some(workflow) = self.spec.workflow.as_deref() {
            labels.insert("executr.workflow".to_owned(), workflow.workflow.clone());
            labels.insert("executr.executor".to_owned(), workflow.executor.name.clone());
        }
        labels
    }

    /// Containers of a job. Whoever gives up waiting leaves nothing half made.
    pub(super) async fn open(
        &mut self,
        options: OciOptions,
        labels: BTreeMap<String, String>,
        deadline: Deadline,
    ) -> Result<Arc<dyn Workspace>, StepVerdict> {
        let (host, machine) = (Arc::clone(&self.engine.oci), Arc::clone(self.engine.workspaces.machine()));
        let opening = OciWorkspace::open(host, machine, JobId(Uuid::new_v4()), options, labels);
        let opened = self.wait_for(opening, deadline).await.map_err(StepVerdict::ended_early)?;
        Ok(Arc::new(opened.map_err(|error| lost(&error))?))
    }

    /// Room for the job in a workspace.
    pub(super) async fn room(
        &mut self,
        workspace: &dyn Workspace,
        plan: JobPlan,
        deadline: Deadline,
    ) -> Result<Box<dyn Sandbox>, StepVerdict> {
        let room = self.wait_for(workspace.setup_job(plan), deadline).await;
        room.map_err(StepVerdict::ended_early)?.map_err(|error| lost(&error))
    }
}

#[cfg(test)]
mod tests {
    use executr_spec::workflow::{ExecutorChoice, WorkflowJob};
    use executr_spec::{Step, StepCommand, StepImage};
    use serde_json::json;

    use super::*;

    fn spec(options: serde_json::Value) -> JobSpec {
        let executor = ExecutorChoice { kind: ExecutorKind::Oci, name: "box".to_owned(), options };
        let workflow = WorkflowJob { executor, ..WorkflowJob::default() };
        JobSpec { workflow: Some(Box::new(workflow)), ..JobSpec::new(Vec::new()) }
    }

    #[test]
    fn a_local_executor_may_keep_jobs_from_the_machine() {
        let spec = |options| {
            let mut spec = spec(options);
            if let Some(workflow) = &mut spec.workflow {
                workflow.executor.kind = ExecutorKind::Local;
            }
            spec
        };
        let isolated = spec(json!({"isolate": true}));
        assert!(is_contained(&isolated));
        assert_eq!(options(&isolated).expect("settings"), OciOptions::of_machine(Network::None));
        let reaching = options(&spec(json!({"isolate": true, "network": "host"}))).expect("settings");
        assert_eq!(reaching.network, Network::Host);
        for plain in [json!(null), json!({"isolate": false})] {
            assert!(!is_contained(&spec(plain)));
        }
    }

    #[test]
    fn a_worker_gives_what_it_was_told_to() {
        let refused = |spec: &JobSpec, allowed| check(spec, allowed).expect_err("it may not").message.expect("why");
        let plain = spec(json!({"image": "i"}));
        assert!(check(&plain, Containers::Confined).is_ok());
        assert!(refused(&plain, Containers::None).contains("--allow oci"));
        for (key, value) in [("mounts", json!(["/:/host"])), ("network", json!("host")), ("engine", json!("unix:///x"))]
        {
            let spec = spec(json!({"image": "i", key: value}));
            let text = refused(&spec, Containers::Confined);
            assert!(text.contains("--allow oci-host"), "{text}");
            assert!(check(&spec, Containers::Any).is_ok());
        }
        for own in ["auto", "direct", "docker"] {
            assert!(check(&spec(json!({"image": "i", "engine": own})), Containers::Confined).is_ok());
        }
        let mut step = Step::new(StepCommand::Run("true".to_owned()));
        step.image = Some(StepImage { name: "i".to_owned(), ..StepImage::default() });
        let local = JobSpec::new(vec![step]);
        assert!(refused(&local, Containers::None).contains("--allow oci"));
        assert!(check(&local, Containers::Confined).is_ok());
        let wrong = refused(&spec(json!({"imag": "i"})), Containers::Any);
        assert!(wrong.contains("box") && wrong.contains("imag"), "{wrong}");
    }
}
