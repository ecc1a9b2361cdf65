//! A worker's way to hosts of a test.

use std::path::PathBuf;
use std::sync::Arc;

use executr_executors::contract::{Executor, ExecutorError, JobPlan, LimitOffers, Sandbox, Workspace};
use executr_executors::local::{Cgroups, KeeperOptions, LocalExecutor};
use executr_executors::oci::AgentProgram;
use executr_executors::ssh::{
    Client, Mode, Seen, SshError, SshHostOptions, SshHosts, SshOptions, SshWorkspace, Target,
};
use executr_tests::sshd::Sshd;

use crate::conformance::rig::Rig;

/// What a worker has for getting to hosts.
pub(crate) struct Here {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) options: SshHostOptions,
    pub(crate) hosts: Arc<SshHosts>,
    pub(crate) machine: Arc<dyn Workspace>,
}

impl Here {
    pub(crate) async fn new() -> Self {
        Self::with(executr_tests::program::agent()).await
    }

    /// One that sends this program as its agent.
    pub(crate) async fn with(agent: PathBuf) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = executr_tests::program::agent();
        let keeper = KeeperOptions { program, args: vec![], cgroups: Cgroups::WhereWritable };
        let work_dir = directory.path().join("work");
        let machine = LocalExecutor { work_dir, keeper }.setup_workspace().await.unwrap();
        let env = [("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())];
        let options = SshHostOptions {
            client: Client { env: env.into(), ..Client::default() },
            agent: AgentProgram::new(move || Ok(agent.clone())),
            notes: Some(directory.path().join("hosts")),
        };
        let hosts = Arc::new(SshHosts::new(options.clone(), Arc::clone(&machine)));
        Self { directory, options, hosts, machine }
    }

    /// Gets to a host and back.
    pub(crate) async fn look(&self, target: &Target) -> Result<Seen, SshError> {
        self.hosts.look(target).await.map_err(|error| match error {
            ExecutorError::Ssh(error) => error,
            other => panic!("{other}"),
        })
    }

    pub(crate) async fn end(self) {
        self.hosts.close().await;
        self.machine.cleanup().await;
        let notes = std::fs::read_dir(self.directory.path().join("hosts")).into_iter().flatten().count();
        assert_eq!(notes, 0, "what was on hosts is noted though it is gone");
    }
}

/// The way to a server of the test's.
pub(crate) fn target(host: &Sshd) -> Target {
    let config_file = Some(host.config().display().to_string());
    Target { host: "host".to_owned(), config_file, ..Target::default() }
}

/// The same as settings of an executor.
pub(crate) fn options(host: &Sshd) -> SshOptions {
    let Target { host, config_file, .. } = target(host);
    SshOptions { host: Some(host), config_file, ..SshOptions::default() }
}

/// Hosts, this machine, and the servers that are there as long as both.
struct OnHosts {
    workspace: SshWorkspace,
    hosts: Arc<SshHosts>,
    machine: Arc<dyn Workspace>,
    _server: Sshd,
}

#[async_trait::async_trait]
impl Workspace for OnHosts {
    fn limits(&self) -> &LimitOffers {
        self.workspace.limits()
    }

    async fn setup_job(&self, job: JobPlan) -> Result<Box<dyn Sandbox>, ExecutorError> {
        self.workspace.setup_job(job).await
    }

    async fn cleanup(&self) {
        self.workspace.cleanup().await;
        self.hosts.close().await;
        self.machine.cleanup().await;
    }
}

/// A rig whose jobs run on a host of its own.
pub(crate) async fn on_a_host(mode: Mode) -> Option<Rig> {
    let server = Sshd::start()?;
    let Here { directory, hosts, machine, .. } = Here::new().await;
    // Below the rig's own directory, by which processes of its jobs are known.
    let workspace_dir = Some(directory.path().join("far").display().to_string());
    let options = SshOptions { mode, workspace_dir, ..options(&server) };
    let workspace = SshWorkspace::new(Arc::clone(&hosts), options);
    Some(Rig { workspace: Arc::new(OnHosts { workspace, hosts, machine, _server: server }), directory })
}
