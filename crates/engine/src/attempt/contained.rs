//! An attempt in a container: its own, or one its run's other jobs are in, too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Component;
use std::sync::Arc;

use executr_executors::contract::{ExecutorError, JobPlan, KeeperError, Place, Sandbox, Workspace};
use executr_executors::oci::{Mode, Network, OciOptions, OciWorkspace, RegistryLogin, is_own_engine};
use executr_spec::{ExecutorKind, JobId, JobSpec};
use tokio::sync::OwnedRwLockReadGuard;
use uuid::Uuid;

use super::execution::Deadline;
use super::steps::Progress;
use super::{Attempt, lost};
use crate::host::{ContainerRules, Containers, matches};
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
pub(super) fn check(spec: &JobSpec, allowed: Containers, rules: &ContainerRules) -> Result<(), StepVerdict> {
    let refused = |what: &str, word: &str| {
        Err(StepVerdict::failed(format!("this worker {what}; start it with `--allow {word}`"), true))
    };
    let options = if is_contained(spec) { options(spec)? } else { OciOptions::default() };
    if allowed == Containers::None {
        return refused("runs no containers", "oci");
    }
    // This machine's own files are no image.
    let own = (is_contained(spec) && isolation(spec).is_none()).then_some((&options.image, options.user.as_ref()));
    let of_steps = spec.steps.iter().filter_map(|step| step.image.as_ref());
    for (image, user) in own.into_iter().chain(of_steps.map(|image| (&image.name, image.user.as_ref()))) {
        admitted(rules, image, user.map(String::as_str))?;
    }
    if allowed == Containers::Any {
        return Ok(());
    }
    // One that isn't a mount is told of by whoever reads the settings.
    for mount in options.mounts().unwrap_or_default() {
        let leads_up = mount.source.components().any(|part| part == Component::ParentDir);
        if leads_up || !rules.mounts.iter().any(|allowed| mount.source.starts_with(allowed)) {
            let source = mount.source.display();
            let message = format!(
                "`mounts`: this worker doesn't mount {source} of its machine into containers; start it with `--allow-mount \
                 {source}` or `--allow oci-host`"
            );
            return Err(StepVerdict::failed(message, true));
        }
    }
    if options.network == Network::Host {
        return refused("gives no container its machine's network", "oci-host");
    }
    if !is_own_engine(options.engine.as_deref()) {
        return refused("uses only its own container engine", "oci-host");
    }
    Ok(())
}

/// Whether the worker runs containers of this image, as this user.
fn admitted(rules: &ContainerRules, image: &str, user: Option<&str>) -> Result<(), StepVerdict> {
    let fits = |patterns: &[String], text: &str| patterns.iter().any(|pattern| matches(pattern, text));
    if !rules.images.is_empty() && !fits(&rules.images, image) {
        let message = format!(
            "`image`: this worker runs no containers of `{image}`, only of {}; start it with `--allow-image '{image}'`, or \
             name one of those",
            rules.images.join(", ")
        );
        return Err(StepVerdict::failed(message, true));
    }
    if !rules.users.is_empty() && !user.is_some_and(|user| fits(&rules.users, user)) {
        let who = user.map_or_else(|| "whom the image says".to_owned(), |user| format!("`{user}`"));
        let message = format!(
            "`user`: this worker runs no step in a container as {who}, only as {}; say one of those, or start it with \
             `--allow-user`",
            rules.users.join(", ")
        );
        return Err(StepVerdict::failed(message, true));
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

    /// The settings with who one is at the image's registry, where variables say that.
    fn with_login(&mut self, options: OciOptions) -> Result<OciOptions, StepVerdict> {
        let Some(named) = options.registry.clone() else { return Ok(options) };
        let (username, password) = (self.secret(&named.username_env)?, self.secret(&named.password_env)?);
        self.mask(&BTreeSet::from([password.clone()]));
        Ok(OciOptions { login: Some(RegistryLogin { username, password }), ..options })
    }

    /// Containers of a job. Whoever gives up waiting leaves nothing half made.
    pub(super) async fn open(
        &mut self,
        options: OciOptions,
        labels: BTreeMap<String, String>,
        deadline: Deadline,
    ) -> Result<Arc<dyn Workspace>, StepVerdict> {
        let (host, machine) = (Arc::clone(&self.engine.oci), Arc::clone(self.engine.workspaces.machine()));
        let options = self.with_login(options)?;
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
        let refused = |spec: &JobSpec, allowed| {
            check(spec, allowed, &ContainerRules::default()).expect_err("it may not").message.expect("why")
        };
        let plain = spec(json!({"image": "i"}));
        assert!(check(&plain, Containers::Confined, &ContainerRules::default()).is_ok());
        assert!(refused(&plain, Containers::None).contains("--allow oci"));
        for (key, value) in [("mounts", json!(["/:/host"])), ("network", json!("host")), ("engine", json!("unix:///x"))]
        {
            let spec = spec(json!({"image": "i", key: value}));
            let text = refused(&spec, Containers::Confined);
            assert!(text.contains("--allow oci-host"), "{text}");
            assert!(check(&spec, Containers::Any, &ContainerRules::default()).is_ok());
        }
        for own in ["auto", "direct", "docker"] {
            assert!(
                check(&spec(json!({"image": "i", "engine": own})), Containers::Confined, &ContainerRules::default())
                    .is_ok()
            );
        }
        let mut step = Step::new(StepCommand::Run("true".to_owned()));
        step.image = Some(StepImage { name: "i".to_owned(), ..StepImage::default() });
        let local = JobSpec::new(vec![step]);
        assert!(refused(&local, Containers::None).contains("--allow oci"));
        assert!(check(&local, Containers::Confined, &ContainerRules::default()).is_ok());
        let wrong = refused(&spec(json!({"imag": "i"})), Containers::Any);
        assert!(wrong.contains("box") && wrong.contains("imag"), "{wrong}");
    }

    #[test]
    fn images_users_and_mounts_are_as_the_worker_says() {
        let rules = ContainerRules {
            images: vec!["r.example/*".to_owned()],
            users: vec!["1000:*".to_owned()],
            mounts: vec!["/srv/data".into()],
        };
        let refused = |options| {
            check(&spec(options), Containers::Confined, &rules).expect_err("it may not").message.expect("why")
        };
        let good = json!({"image": "r.example/a:1", "user": "1000:1", "mounts": ["/srv/data/x:/x"]});
        assert!(check(&spec(good), Containers::Confined, &rules).is_ok());
        let text = refused(json!({"image": "debian", "user": "1000:1"}));
        assert!(text.contains("`image`") && text.contains("--allow-image"), "{text}");
        for user in [json!("0:0"), json!(null)] {
            let text = refused(json!({"image": "r.example/a", "user": user}));
            assert!(text.contains("`user`") && text.contains("--allow-user"), "{text}");
        }
        for mount in ["/srv/other:/x", "/srv/database:/x", "/srv/data/../x:/x"] {
            let text = refused(json!({"image": "r.example/a", "user": "1000:1", "mounts": [mount]}));
            assert!(text.contains("`mounts`") && text.contains("--allow-mount"), "{text}");
        }
        let mut step = Step::new(StepCommand::Run("true".to_owned()));
        step.image = Some(StepImage { name: "debian".to_owned(), ..StepImage::default() });
        let local = JobSpec::new(vec![step]);
        assert!(check(&local, Containers::Any, &rules).is_err(), "a step's image is no other");
    }
}
