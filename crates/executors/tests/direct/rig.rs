//! Workspaces whose containers are made of a busybox in a directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use executr_executors::contract::{Executor, ExecutorError, JobPlan, LimitOffers, Sandbox, Workspace};
use executr_executors::local::{Cgroups, KeeperOptions, LocalExecutor};
use executr_executors::oci::direct::{DirectOptions, Images, Layers, Runtime};
use executr_executors::oci::{
    AgentProgram, ContainerError, Image, Network, OciHost, OciHostOptions, OciOptions, OciWorkspace, Pull,
};
use executr_tests::{component, program, rootfs};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::conformance::rig::{Rig, plan};

/// Names the agent's program to a test that is run as somebody who can't build it.
pub(crate) const AGENT: &str = "EXECUTR_TEST_AGENT";

/// The one image there is; `ann` is the same, whose maker said that it runs as that user.
pub(crate) const IMAGE: &str = "busybox";

/// Directories that runtimes are looked for in.
const PROGRAMS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[expect(clippy::disallowed_methods, reason = "how a test that runs itself again tells itself what it knows")]
pub(crate) fn agent() -> PathBuf {
    std::env::var_os(AGENT).map_or_else(program::contained_agent, PathBuf::from)
}

#[expect(clippy::disallowed_methods, reason = "whose files no job should see")]
pub(crate) fn home() -> String {
    std::env::var("HOME").unwrap_or("/root".to_owned())
}

/// Layers in a directory.
#[derive(Debug)]
struct Unpacked(PathBuf);

#[async_trait]
impl Images for Unpacked {
    async fn image(&self, name: &str, _pull: Pull) -> Result<Layers, ContainerError> {
        let (directories, user) = match name {
            "busybox" => (vec![self.0.clone()], ""),
            "ann" => (vec![self.0.clone()], "ann"),
            "empty" => (vec![], ""),
            _ => return Err(ContainerError::Image { image: name.to_owned(), message: "it isn't there".to_owned() }),
        };
        let env = vec!["FROM_IMAGE=image".into(), "PATH=/bin:/usr/bin".into()];
        Ok(Layers { image: Image { user: user.to_owned(), env, called: None }, directories, held: Arc::new(()) })
    }
}

/// Containers, and the machine whose directories they have.
pub(crate) struct Both {
    pub(crate) containers: OciWorkspace,
    machine: Arc<dyn Workspace>,
    /// What isn't in the rig's own directory: the arguments of a container's processes here name it, and by its name the
    /// suite finds those of jobs.
    pub(crate) state: TempDir,
}

#[async_trait]
impl Workspace for Both {
    fn limits(&self) -> &LimitOffers {
        self.containers.limits()
    }

    async fn setup_job(&self, job: JobPlan) -> Result<Box<dyn Sandbox>, ExecutorError> {
        self.containers.setup_job(job).await
    }

    async fn cleanup(&self) {
        self.containers.cleanup().await;
        self.machine.cleanup().await;
    }
}

/// What a worker that has its things in `temp` says of containers; `None` where there can be none, which is said.
pub(crate) fn host(temp: &Path) -> Option<OciHostOptions> {
    let programs: Vec<PathBuf> = PROGRAMS.map(PathBuf::from).into();
    if Runtime::find(&programs).is_none() {
        component::missing("crun", "neither is runc");
        return None;
    }
    let root = temp.join("rootfs");
    if !root.exists() && !rootfs::make(&root) {
        return None;
    }
    let agent = agent();
    Some(OciHostOptions {
        agent: AgentProgram::new(move || Ok(agent.clone())),
        direct: Some(DirectOptions {
            state: temp.join("containers"),
            images: Arc::new(Unpacked(root)),
            hidden: vec![home().into()],
            programs,
        }),
        ..OciHostOptions::default()
    })
}

/// This machine, as `local` has it.
pub(crate) async fn machine(temp: &Path) -> Arc<dyn Workspace> {
    machine_with(temp, Cgroups::WhereWritable).await
}

async fn machine_with(temp: &Path, cgroups: Cgroups) -> Arc<dyn Workspace> {
    let keeper = KeeperOptions { program: agent(), args: vec![], cgroups };
    LocalExecutor { work_dir: temp.join("work"), keeper }.setup_workspace().await.unwrap()
}

/// A workspace with these settings; `"machine"` is one of this machine's own files, `["machine", MOUNT]` with a directory more.
pub(crate) async fn open(temp: &Path, settings: Value) -> Option<Result<Both, ExecutorError>> {
    open_with(temp, settings, Cgroups::WhereWritable).await
}

/// The same on a machine with or without control groups.
pub(crate) async fn open_with(temp: &Path, settings: Value, cgroups: Cgroups) -> Option<Result<Both, ExecutorError>> {
    let state = tempfile::tempdir().unwrap();
    let host = Arc::new(OciHost::new(host(state.path())?));
    let machine = machine_with(temp, cgroups).await;
    let options = if settings == "machine" {
        OciOptions::of_machine(Network::None)
    } else if let Some([_machine, mount]) = settings.as_array().map(Vec::as_slice) {
        let mounts = vec![mount.as_str().unwrap().to_owned()];
        OciOptions { mounts, ..OciOptions::of_machine(Network::None) }
    } else {
        serde_json::from_value(settings).unwrap()
    };
    let opened = OciWorkspace::open(host, Arc::clone(&machine), plan().job, options, [].into()).await;
    Some(match opened {
        Ok(containers) => Ok(Both { containers, machine, state }),
        Err(error) => {
            machine.cleanup().await;
            Err(error)
        }
    })
}

/// A rig of `busybox`, with more settings; `None` where there can be none.
pub(crate) async fn rig_of(more: Value) -> Option<Rig> {
    rig_in(tempfile::tempdir().unwrap(), more).await
}

async fn rig_in(directory: TempDir, more: Value) -> Option<Rig> {
    let mut settings = json!({"image": IMAGE, "network": "none", "engine": "direct"});
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let both = open(directory.path(), settings).await?.unwrap();
    Some(Rig { workspace: Arc::new(both), directory })
}

/// A rig whose own directory is in the container, too.
pub(crate) async fn conforming(mode: &str) -> Option<Rig> {
    let temp = tempfile::tempdir().unwrap();
    let mount = format!("{0}:{0}", temp.path().display());
    rig_in(temp, json!({"mode": mode, "mounts": [mount]})).await
}
