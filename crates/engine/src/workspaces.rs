//! Workspaces that are set up once for many jobs of a run, and cleaned up when none needs them any more.
//!
//! `hooks` has such, and `oci` where jobs share a container; what `local` shares it has for the worker's whole life.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use executr_api::WorkspaceId;
use executr_executors::contract::{Act, Event, Execution, ExecutorError, Exit, Sandbox, Stream, Workspace};
use executr_executors::hooks::{HooksOptions, HooksWorkspace};
use executr_spec::{Digest, JobId};
use tokio::sync::RwLock;
use uuid::Uuid;

use crate::masking::{MaskedStream, Masker};

/// How long cleaning up may take: a hook that waits for ever must not keep a worker from ending.
pub(crate) const CLEANUP: Duration = Duration::from_secs(120);
/// How long its processes may take after SIGTERM then.
const GRACE: Duration = Duration::from_secs(5);

/// The workspaces of one worker.
pub struct Workspaces {
    machine: Arc<dyn Workspace>,
    held: Mutex<HashMap<WorkspaceId, Arc<Held>>>,
}

/// One that is here.
#[derive(Default)]
pub(crate) struct Held {
    /// How far its setup is. Locked while somebody works at it.
    pub(crate) setup: tokio::sync::Mutex<Setup>,
    /// Shared by jobs that are in it.
    pub(crate) users: Arc<RwLock<()>>,
    /// Values that jobs had in it and that must not be seen: its last hook may say them.
    secrets: Mutex<BTreeSet<String>>,
}

/// How far a setup is.
#[derive(Default)]
pub(crate) struct Setup {
    /// There once there is room for it.
    pub(crate) workspace: Option<Arc<HooksWorkspace>>,
    /// The same of an executor without hooks: the container.
    pub(crate) container: Option<Arc<dyn Workspace>>,
    /// The first hook is done.
    pub(crate) done: bool,
    /// The repository that is in it.
    pub(crate) source: Option<Digest>,
    /// What its hooks know.
    pub(crate) env: Vec<Bytes>,
}

impl Setup {
    /// The workspace, opened by whoever comes first.
    pub(crate) async fn open(
        &mut self,
        machine: &Arc<dyn Workspace>,
        options: HooksOptions,
    ) -> Result<Arc<HooksWorkspace>, ExecutorError> {
        if let Some(workspace) = &self.workspace {
            return Ok(Arc::clone(workspace));
        }
        let opened = Arc::new(HooksWorkspace::open(Arc::clone(machine), JobId(Uuid::new_v4()), options).await?);
        self.workspace = Some(Arc::clone(&opened));
        Ok(opened)
    }
}

impl Held {
    /// What must not be seen of a job that was in it.
    pub(crate) fn keep_secret(&self, values: &BTreeSet<String>) {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).extend(values.iter().cloned());
    }

    /// Runs the last hook, whatever became of the first, and lets go of the place.
    async fn clean(&self, id: &WorkspaceId) {
        let _alone = self.users.write().await;
        let Setup { workspace, container, env, .. } = std::mem::take(&mut *self.setup.lock().await);
        if let Some(container) = container {
            container.cleanup().await;
        }
        let Some(workspace) = workspace else { return };
        let masker =
            Masker::new(self.secrets.lock().unwrap_or_else(PoisonError::into_inner).iter().map(String::as_str));
        {
            let mut own = workspace.own().await;
            let ended = match own.act(Act::CleanUp, &env).await {
                Ok(None) => Ok(()),
                Ok(Some(mut execution)) => drained(execution.as_mut(), id, masker.as_ref()).await,
                Err(error) => Err(error.to_string()),
            };
            if let Err(problem) = ended {
                let place = own.take_failure().unwrap_or_default();
                tracing::warn!(run = %id.run, executor = %id.executor, place, problem, "a workspace wasn't cleaned up");
            }
        }
        workspace.cleanup().await;
    }
}

/// What a hook says that belongs to no job: it goes to the worker's own log, masked as all output is.
struct Said<'a> {
    masker: Option<&'a Masker>,
    stdout: MaskedStream,
    stderr: MaskedStream,
}

impl Said<'_> {
    fn push(&mut self, stream: Stream, data: &[u8], id: &WorkspaceId) {
        let Some(masker) = self.masker else { return log(data, id) };
        let masked = if stream == Stream::Stderr { &mut self.stderr } else { &mut self.stdout };
        let mut out = Vec::new();
        masked.push(masker, data, &mut out);
        log(&out, id);
    }

    fn end(&mut self, id: &WorkspaceId) {
        for masked in [&mut self.stdout, &mut self.stderr] {
            let mut out = Vec::new();
            masked.end(&mut out);
            log(&out, id);
        }
    }
}

fn log(data: &[u8], id: &WorkspaceId) {
    if !data.is_empty() {
        let text = String::from_utf8_lossy(data);
        tracing::debug!(run = %id.run, executor = %id.executor, "cleanup: {}", text.trim_end());
    }
}

/// Waits for the end of a hook that belongs to no job, and for its success.
async fn drained(execution: &mut dyn Execution, id: &WorkspaceId, masker: Option<&Masker>) -> Result<(), String> {
    let mut said = Said { masker, stdout: MaskedStream::default(), stderr: MaskedStream::default() };
    let mut ending = false;
    loop {
        let Ok(event) = tokio::time::timeout(CLEANUP, execution.next()).await else {
            if std::mem::replace(&mut ending, true) {
                return Err("it can't be ended".to_owned());
            }
            execution.end(GRACE).await.map_err(|error| error.to_string())?;
            continue;
        };
        match event.map_err(|error| error.to_string())? {
            Some(Event::Output { stream, data, .. }) => said.push(stream, &data, id),
            Some(Event::Ended(ended)) => {
                said.end(id);
                return match ended.exit {
                    Exit::Code(0) => Ok(()),
                    Exit::Code(code) => Err(format!("exit code {code}")),
                    Exit::Signal(signal) => Err(format!("killed by signal {signal}")),
                };
            }
            Some(Event::StartFailed(failed)) => return Err(failed.failure.to_string()),
            Some(Event::Started { .. } | Event::InputTaken { .. }) => {}
            None => return Ok(()),
        }
    }
}

impl Workspaces {
    /// None yet; they are made on `machine`.
    #[must_use]
    pub fn new(machine: Arc<dyn Workspace>) -> Self {
        Self { machine, held: Mutex::default() }
    }

    pub(crate) fn machine(&self) -> &Arc<dyn Workspace> {
        &self.machine
    }

    /// The workspace of this name, new when there is none.
    pub(crate) fn held(&self, id: &WorkspaceId) -> Arc<Held> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(held.entry(id.clone()).or_default())
    }

    /// Cleans one up, once no job is in it any more. One that isn't here is clean.
    pub async fn clean(&self, id: &WorkspaceId) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        if let Some(held) = held {
            held.clean(id).await;
        }
    }

    /// Cleans all up: the worker ends.
    pub async fn clean_all(&self) {
        let held = std::mem::take(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner));
        for (id, held) in held {
            held.clean(&id).await;
        }
    }
}
