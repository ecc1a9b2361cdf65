//! From flags to a worker.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use executr_api::QueueWeight;
use executr_executors::oci::direct::DirectOptions;
#[cfg(feature = "oci")]
use executr_executors::oci::direct::StoredImages;
#[cfg(feature = "oci")]
use executr_executors::ssh::{Client, SshHostOptions};
use executr_images::{Access, CredentialSource, StoreOptions};
use executr_spec::QueueName;
use executr_worker::{
    AgentProgram, Cgroups, ContainerRules, Containers, HostContext, Hosts, Inherit, KeeperOptions, KeptDirectories,
    OciHostOptions, Policy, Worker, WorkerError, WorkerOptions,
};

use crate::arguments::{Allowed, ExecutorArgs, ExecutorChoices, WorkflowHereArgs};
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::host;
use crate::services::{TREES, agent, jobs_limit};

const MEGABYTE: u64 = 1_000_000;

/// The worker of `executr executor`. Results wait in `data` while the server is away.
pub(crate) fn executor_options(arguments: &ExecutorArgs, data: &Path) -> WorkerOptions {
    WorkerOptions {
        heartbeat_interval: arguments.heartbeat_interval.0,
        network_timeout: arguments.network_timeout.0,
        max_total_jobs: arguments.max_total_jobs,
        max_active_time: arguments.max_active_time.map(|time| time.0),
        ..options(&arguments.name, arguments.max_jobs, &arguments.choices, data)
    }
}

/// A worker that others can submit jobs to.
pub(crate) fn options(name: &str, slots: u32, choices: &ExecutorChoices, data: &Path) -> WorkerOptions {
    let mut options = WorkerOptions::new(name, data, keeper());
    options.slots = slots;
    if choices.queue.is_empty() {
        options.queues = vec![QueueWeight { queue: QueueName::default(), weight: 1 }];
    } else {
        options.queues.clone_from(&choices.queue);
    }
    options.labels = choices.label.iter().cloned().collect();
    options.policy = Policy {
        container_rules: ContainerRules {
            images: choices.allow_image.clone(),
            users: choices.allow_user.clone(),
            mounts: choices.allow_mount.clone(),
        },
        ..policy(&choices.allow)
    };
    options.host = HostContext { variables: host::variables(), ..HostContext::default() };
    options.oci = containers(data, &choices.registry_mirror);
    options.hosts = hosts(data);
    options.work_dir.clone_from(&choices.work_dir);
    options.cache.directory.clone_from(&choices.cache_dir);
    options.cache.max_bytes = choices.max_cache_size.saturating_mul(MEGABYTE);
    options.output.cap = choices.output_cap.0;
    options.kill_grace = choices.kill_grace.0;
    options
}

/// The worker of `executr run`: one slot for one job of the user's own. Binaries are kept in `data`, all else in the run's
/// `directory`.
pub(crate) fn run_options(data: &Path, directory: &Path, cgroups: Cgroups) -> WorkerOptions {
    let mut options = WorkerOptions::new("run", directory, KeeperOptions { cgroups, ..keeper() });
    options.cache.directory = data.join("cache");
    options.work_dir = directory.to_owned();
    options.spool_dir = directory.to_owned();
    options.policy = Policy::everything();
    options.host = HostContext { variables: host::variables(), ..HostContext::default() };
    options.oci = containers(data, &host::registry_mirrors());
    options.hosts = hosts(data);
    // Somebody is looking.
    options.output.gather = Duration::from_millis(5);
    options
}

/// The worker of `executr run FILE`: it may do what its user may.
pub(crate) fn workflow_options(
    data: &Path,
    directory: &Path,
    repository: &Path,
    here: &WorkflowHereArgs,
    secrets: &[String],
) -> WorkerOptions {
    let mut options = run_options(data, directory, Cgroups::WhereWritable);
    options.trees.directory = data.join(TREES);
    options.slots = here.jobs.unwrap_or_else(processors);
    options.kept = here.keep.then(|| KeptDirectories::below(directory.join("kept")));
    // As long as the output of a job that just began is left unread.
    options.output.gather = Duration::from_millis(50);
    options.host.repository = Some(repository.to_owned());
    options.host.secrets =
        secrets.iter().filter_map(|name| Some((name.clone(), std::env::var_os(name)?.into_string().ok()?))).collect();
    options
}

/// How many jobs this machine runs at a time unless told otherwise: one for each processor.
pub(crate) fn processors() -> u32 {
    std::thread::available_parallelism().map_or(1, |processors| u32::try_from(processors.get()).unwrap_or(u32::MAX))
}

/// Sets a worker up.
pub(crate) async fn set_up(options: WorkerOptions) -> Result<Worker> {
    Worker::start(options).await.map_err(failure)
}

/// Why a worker ended, for its user.
pub(crate) fn failure(error: WorkerError) -> Failure {
    match error {
        WorkerError::Refused(error) => Failure::api(&error, None),
        error => Failure::new(Exit::FAILURE, error),
    }
}

/// How this program is started as a keeper.
pub(crate) fn keeper() -> KeeperOptions {
    KeeperOptions {
        // This very program, whatever has become of its file since.
        program: PathBuf::from("/proc/self/exe"),
        args: [OsString::from(host::KEEPER)]
            .into_iter()
            .chain(jobs_limit().map(|most| most.to_string().into()))
            .collect(),
        cgroups: Cgroups::WhereWritable,
    }
}

fn policy(allowed: &[Allowed]) -> Policy {
    Policy {
        container_rules: ContainerRules::default(),
        directory: allowed.contains(&Allowed::Directory),
        inherit: if allowed.contains(&Allowed::Inherit) { Inherit::AllButOurs } else { Inherit::Nothing },
        providers: allowed.contains(&Allowed::Providers),
        hooks: allowed.contains(&Allowed::Hooks),
        command: allowed.contains(&Allowed::Command),
        containers: match (allowed.contains(&Allowed::Oci), allowed.contains(&Allowed::OciHost)) {
            (_, true) => Containers::Any,
            (true, false) => Containers::Confined,
            (false, false) => Containers::None,
        },
        hosts: match (allowed.contains(&Allowed::Ssh), allowed.contains(&Allowed::SshFiles)) {
            (_, true) => Hosts::Any,
            (true, false) => Hosts::Configured,
            (false, false) => Hosts::None,
        },
    }
}

/// How this user gets to other hosts, and where it is noted that something is on one.
pub(crate) fn hosts(data: &Path) -> SshHostOptions {
    let agent = data.to_owned();
    SshHostOptions {
        client: Client { env: host::variables_but_ours(), ..Client::default() },
        agent: AgentProgram::new(move || agent::program(&agent)),
        notes: Some(data.join("hosts")),
    }
}

/// Where container engines listen on this machine, and the agent for their containers, which is unpacked into `data`.
pub(crate) fn containers(data: &Path, mirrors: &[String]) -> OciHostOptions {
    #[cfg(not(feature = "oci"))]
    let _ = mirrors;
    #[cfg(feature = "oci")]
    let access = access(mirrors);
    #[cfg(feature = "oci")]
    let direct = direct(data, access.clone());
    #[cfg(not(feature = "oci"))]
    let direct = None;
    let data = data.to_owned();
    OciHostOptions {
        address: host::engine_address(),
        sockets: host::engine_sockets(),
        agent: AgentProgram::new(move || agent::program(&data)),
        direct,
        #[cfg(feature = "oci")]
        access,
        programs: None,
    }
}

/// What containers without a daemon take, below `data`.
#[cfg(feature = "oci")]
fn direct(data: &Path, access: Access) -> Option<DirectOptions> {
    Some(DirectOptions {
        state: data.join("containers"),
        images: std::sync::Arc::new(StoredImages::new(data.join(super::IMAGES), StoreOptions::default(), access)),
        hidden: std::env::home_dir().into_iter().chain([data.to_owned()]).collect(),
        programs: host::program_directories(),
    })
}

/// How registries are reached: by the logins that other programs have written down, through mirrors.
#[cfg(feature = "oci")]
fn access(mirrors: &[String]) -> Access {
    let credentials = host::registry_logins().into_iter().map(CredentialSource::File).collect();
    let parsed = mirrors.iter().filter_map(|mirror| match mirror.parse() {
        Ok(mirror) => Some(mirror),
        Err(error) => {
            tracing::warn!(%error, "a mirror is left out");
            None
        }
    });
    Access { credentials, mirrors: parsed.collect(), ..Access::default() }
}
