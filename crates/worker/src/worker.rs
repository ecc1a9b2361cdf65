//! A worker process's inside.

use std::sync::Arc;

use executr_api::{ApiError, Version, WorkerApi, WorkerHello};
use executr_engine::binary_cache::{BinaryCache, CacheError};
use executr_engine::{Consoles, Containers, Engine, Hosts, Inherit, Providers, Trees, Workspaces};
use executr_executors::command::CommandHost;
use executr_executors::contract::{Executor, ExecutorError, LimitOffers, Workspace};
use executr_executors::local::LocalExecutor;
use executr_executors::oci::{OciHost, OciHostOptions};
use executr_executors::ssh::SshHosts;
use executr_spec::{Capability, ExecutorKind, Offers, WorkerId};
use thiserror::Error;

use crate::dispatcher::Dispatcher;
use crate::options::WorkerOptions;
use crate::outbox::{Outbox, OutboxError};
use crate::shutdown::Shutdown;

/// A worker, set up and not started.
pub struct Worker {
    options: WorkerOptions,
    hello: WorkerHello,
    workspace: Arc<dyn Workspace>,
    cache: BinaryCache,
    outbox: Outbox,
}

/// What a worker did in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerSummary {
    /// Attempts it started.
    pub started: u64,
    /// Of those, ended well.
    pub succeeded: u64,
    /// Of those, ended badly.
    pub failed: u64,
    /// Of those, ended by request.
    pub cancelled: u64,
    /// Results the coordinator couldn't be told: they lie in the spool for the next worker.
    pub undelivered: u64,
}

/// Why a worker can't work.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// Jobs can't be run here.
    #[error("this machine can't run jobs: {0}")]
    Executor(#[from] ExecutorError),
    /// Binaries can't be kept here.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// Results can't be kept here.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// The server doesn't want it.
    #[error("the server refuses this executor: {0}")]
    Refused(ApiError),
}

impl Worker {
    /// Sets up what jobs need: directories, the first keeper, what an earlier worker left to deliver. Takes no job yet, and
    /// needs no coordinator: one in the same process can be made ready meanwhile.
    ///
    /// # Errors
    /// When this machine can't run jobs as asked.
    pub async fn start(options: WorkerOptions) -> Result<Self, WorkerError> {
        let outbox = Outbox::open(options.spool_dir.join("results"))?;
        let cache = BinaryCache::open(options.cache.clone())?;
        let executor = LocalExecutor { work_dir: options.work_dir.clone(), keeper: options.keeper.clone() };
        let workspace = executor.setup_workspace().await?;
        let suffix = uuid::Uuid::new_v4().simple().to_string();
        let hello = WorkerHello {
            id: WorkerId(format!("{}-{}", options.name, &suffix[..12])),
            name: options.name.clone(),
            ip: options.ip.clone(),
            version: Version::current(),
            slots: options.slots.max(1),
            queues: options.queues.clone(),
            offers: offers(&options, workspace.limits()),
        };
        Ok(Self { options, hello, workspace, cache, outbox })
    }

    /// Who it is to the coordinator.
    #[must_use]
    pub fn hello(&self) -> &WorkerHello {
        &self.hello
    }

    /// Takes jobs from the coordinator behind `api` and runs them, until it is told to stop, has run as many or as long as it may, or the coordinator
    /// says so.
    ///
    /// # Errors
    /// [`WorkerError::Refused`] when the coordinator doesn't take it at all.
    pub async fn run(self, api: Arc<dyn WorkerApi>, shutdown: Shutdown) -> Result<WorkerSummary, WorkerError> {
        let Self { options, hello, workspace, cache, outbox } = self;
        let engine = Engine {
            workspace: Arc::clone(&workspace),
            cache,
            api,
            host: options.host.clone(),
            policy: options.policy.clone(),
            output: options.output.clone(),
            kill_grace: options.kill_grace,
            aftermath: options.aftermath,
            kept: options.kept.clone(),
            consoles: Consoles::default(),
            providers: Providers::default(),
            trees: Trees::new(options.trees.clone()),
            workspaces: Workspaces::new(Arc::clone(&workspace)),
            command: CommandHost { agent: options.oci.agent.clone(), programs: options.cache.directory.clone() },
            hosts: Arc::new(SshHosts::new(options.hosts.clone(), Arc::clone(&workspace))),
            oci: Arc::new(OciHost::new(OciHostOptions {
                programs: Some(options.cache.directory.clone()),
                ..options.oci.clone()
            })),
        };
        let engine = Arc::new(engine);
        let dispatcher = Dispatcher::new(options, hello, Arc::clone(&engine), outbox);
        let summary = dispatcher.run(shutdown.also_what_was_told()).await;
        engine.workspaces.clean_all().await;
        engine.oci.settle().await;
        engine.hosts.close().await;
        workspace.cleanup().await;
        summary
    }
}

/// What the worker can and may do.
fn offers(options: &WorkerOptions, limits: &LimitOffers) -> Offers {
    let offered = [
        (Capability::LimitCpu, limits.cpu.is_ok()),
        (Capability::LimitMemory, limits.memory.is_ok()),
        (Capability::LimitPids, limits.pids.is_ok()),
        (Capability::Directory, options.policy.directory),
        (Capability::Inherit, options.policy.inherit != Inherit::Nothing),
        (Capability::Providers, options.policy.providers),
        (Capability::Containers, options.policy.containers != Containers::None),
    ];
    let hooks = options.policy.hooks.then_some(ExecutorKind::Hooks);
    let command = options.policy.command.then_some(ExecutorKind::Command);
    let containers = (options.policy.containers != Containers::None).then_some(ExecutorKind::Oci);
    let hosts = (options.policy.hosts != Hosts::None).then_some(ExecutorKind::Ssh);
    let more = hooks.into_iter().chain(containers).chain(command).chain(hosts);
    Offers {
        executors: [ExecutorKind::Local].into_iter().chain(more).collect(),
        labels: options.labels.clone(),
        capabilities: offered.into_iter().filter_map(|(capability, is)| is.then_some(capability)).collect(),
        worker: None,
    }
}
