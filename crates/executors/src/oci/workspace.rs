//! A container for all jobs of an executor, or one for each.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use executr_spec::JobId;
use executr_spec::workflow::ModifiedFiles;
use executr_tree::{Changes, MadeTree, Packed};

use super::container::{Container, Purpose};
use super::host::OciHost;
use super::options::{Mode, OciOptions};
use crate::contract::{
    Act, Consoles, Execution, ExecutorError, FileToPut, Handover, JobPlan, LimitOffers, Limits, Offer, Place, PutTo,
    Sandbox, StepPlan, TakeFrom, TreeAtHand, Workspace,
};

/// Containers, as one executor of a workflow wants them.
pub struct OciWorkspace {
    host: Arc<OciHost>,
    machine: Arc<dyn Workspace>,
    options: Arc<OciOptions>,
    id: JobId,
    labels: BTreeMap<String, String>,
    limits: LimitOffers,
    /// The one that jobs share.
    shared: Option<Container>,
}

impl OciWorkspace {
    /// Sets up what jobs share: a container named after `id`, or nothing yet where each has its own. `machine` makes
    /// directories here, and `labels` say what the containers are for. The one container of a job that has its directory
    /// already (`Place::Directory`) is named after `id` as well.
    ///
    /// # Errors
    /// When there is no engine, no image or no container.
    pub async fn open(
        host: Arc<OciHost>,
        machine: Arc<dyn Workspace>,
        id: JobId,
        options: OciOptions,
        labels: BTreeMap<String, String>,
    ) -> Result<Self, ExecutorError> {
        let is_shared = options.mode == Mode::Shared;
        let mut workspace = Self {
            host,
            machine,
            options: Arc::new(options),
            id,
            labels,
            limits: if is_shared {
                not_of_one_job()
            } else {
                LimitOffers { memory: Ok(()), cpu: Ok(()), pids: Ok(()) }
            },
            shared: None,
        };
        if is_shared {
            let plan = JobPlan { job: id, attempt: 1, place: Place::Sandbox, limits: Limits::default() };
            let labels = workspace.labels.clone();
            workspace.shared = Some(workspace.start(plan, labels).await?);
        }
        Ok(workspace)
    }

    /// Starts a container, in a task of its own: whoever gives up waiting for it leaves nothing half made.
    async fn start(&self, plan: JobPlan, labels: BTreeMap<String, String>) -> Result<Container, ExecutorError> {
        let (host, options) = (Arc::clone(&self.host), Arc::clone(&self.options));
        let machine = Arc::clone(&self.machine);
        let started = tokio::spawn(async move {
            let purpose = Purpose { plan, labels };
            Container::start(&host, &options, &machine, purpose).await
        });
        started.await.unwrap_or_else(|broken| match broken.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(super::ContainerError::Silent.into()),
        })
    }
}

/// What jobs in one container can't have of their own.
fn not_of_one_job() -> LimitOffers {
    let refused = || Err("jobs share the container; bound that, or say `mode: isolated`".to_owned());
    LimitOffers { memory: refused(), cpu: refused(), pids: refused() }
}

#[async_trait]
impl Workspace for OciWorkspace {
    fn limits(&self) -> &LimitOffers {
        &self.limits
    }

    async fn setup_job(&self, job: JobPlan) -> Result<Box<dyn Sandbox>, ExecutorError> {
        if let Some(container) = &self.shared {
            for (limit, asked, offer) in [
                ("cpu", job.limits.cpu_millis > 0, &self.limits.cpu),
                ("memory", job.limits.memory_bytes > 0, &self.limits.memory),
                ("pids", job.limits.pids > 0, &self.limits.pids),
            ] {
                if let (true, Err(reason)) = (asked, offer) {
                    return Err(ExecutorError::Limit { limit, reason: reason.clone() });
                }
            }
            let job = JobPlan { place: Place::Sandbox, ..job };
            let (place, variables) = (container.sandbox(job).await?, container.variables.clone());
            return Ok(Box::new(ContainedSandbox { place, variables, own: None, host: Arc::clone(&self.host) }));
        }
        let mut labels = self.labels.clone();
        labels.entry("executr.job".to_owned()).or_insert_with(|| job.job.to_string());
        let mut of_container = job.clone();
        if matches!(job.place, Place::Directory(_)) {
            // The job may have a directory of its own name on this machine.
            of_container.job = self.id;
        }
        let own = self.start(of_container, labels).await?;
        let (place, variables) = (own.sandbox(job).await?, own.variables.clone());
        Ok(Box::new(ContainedSandbox { place, variables, own: Some(own), host: Arc::clone(&self.host) }))
    }

    async fn cleanup(&self) {
        if let Some(shared) = &self.shared {
            shared.stop().await;
        }
        self.host.settle().await;
    }
}

/// A job's place in a container.
struct ContainedSandbox {
    /// Its directory and its keeper: as on this machine, but for where that is.
    place: Box<dyn Sandbox>,
    variables: Option<Arc<[Bytes]>>,
    /// The container that goes with the job.
    own: Option<Container>,
    host: Arc<OciHost>,
}

#[async_trait]
impl Sandbox for ContainedSandbox {
    fn directory(&self) -> &Path {
        self.place.directory()
    }

    fn variables(&self) -> Option<&[Bytes]> {
        self.variables.as_deref()
    }

    async fn make_directory(&mut self) -> Result<(), ExecutorError> {
        self.place.make_directory().await
    }

    fn keep_directory(&mut self, target: &Path) {
        self.place.keep_directory(target);
    }

    async fn put_tree(&mut self, tree: Arc<dyn TreeAtHand>, to: PutTo<'_>) -> Result<(), ExecutorError> {
        self.place.put_tree(tree, to).await
    }

    async fn put_files(&mut self, files: Vec<FileToPut>) -> Result<(), ExecutorError> {
        self.place.put_files(files).await
    }

    async fn take_tree(&mut self, from: TakeFrom<'_>, offer: Offer) -> Result<Option<MadeTree>, ExecutorError> {
        self.place.take_tree(from, offer).await
    }

    async fn note(&mut self) -> Result<(), ExecutorError> {
        self.place.note().await
    }

    async fn changes(&mut self) -> Result<Changes, ExecutorError> {
        self.place.changes().await
    }

    async fn begin_modified(&mut self) -> Result<(), ExecutorError> {
        self.place.begin_modified().await
    }

    async fn take_modified(&mut self, wanted: &ModifiedFiles, into: File) -> Result<Packed, ExecutorError> {
        self.place.take_modified(wanted, into).await
    }

    fn handover_path(&mut self, handover: Handover) -> PathBuf {
        self.place.handover_path(handover)
    }

    async fn take_handover(&mut self, handover: Handover, limit: u64) -> Result<Option<Bytes>, ExecutorError> {
        self.place.take_handover(handover, limit).await
    }

    async fn act(&mut self, act: Act<'_>, env: &[Bytes]) -> Result<Option<Box<dyn Execution + '_>>, ExecutorError> {
        self.place.act(act, env).await
    }

    async fn execute(&mut self, step: StepPlan) -> Result<Box<dyn Execution + '_>, ExecutorError> {
        self.place.execute(step).await
    }

    fn consoles(&self) -> Option<Arc<dyn Consoles>> {
        self.place.consoles()
    }

    async fn cleanup(&mut self) -> Result<(), ExecutorError> {
        let cleaned = self.place.cleanup().await;
        match self.own.take() {
            // Nothing of the job runs in it any more: only the agent, whose end nobody has to wait for.
            Some(own) if cleaned.is_ok() => {
                self.host.let_go(async move { own.stop().await }).await;
                Ok(())
            }
            // What the job left goes with its container's directories.
            Some(own) => {
                own.stop().await;
                Ok(())
            }
            None => cleaned,
        }
    }
}
