//! One container, with its directories on this machine and the agent in it.
//!
//! ```text
//! SCRATCH/agent   → /.executr/run     the agent's socket
//! SCRATCH/jobs    → SCRATCH/jobs      job directories: the same path on both sides
//! the agent       → /.executr/agent   read-only, the first process
//! ```
//!
//! Only the owner of SCRATCH may enter it, so on this machine nobody else sees what is below.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use executr_agent_protocol::driver::KeeperSource;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::appearing::Appearing;
use super::engine::{ContainerEngine, ContainerError, ContainerPlan, Image, Mount};
use super::host::OciHost;
use super::networks::{Membership, aliases};
use super::options::{Network, OciOptions};
use super::owner::{OWNER, Owner};
use super::selection::{Chosen, Wanted};
use crate::contract::{ExecutorError, JobPlan, KeeperError, LimitOffers, Limits, Place, Sandbox, Workspace};
use crate::local::{LocalWorkspace, RunAs};

/// Containers this process has started: the next attempt of a job has the same directory, and may come while the engine
/// still removes the container of the one before.
static STARTED: AtomicU64 = AtomicU64::new(1);

/// How long the agent may take to answer once its container was started.
const ANSWER: Duration = Duration::from_secs(60);
/// How long its keepers may take to end what they run before the container goes with all that is in it.
const GOODBYE: Duration = Duration::from_secs(5);
/// The longest wait between two looks whether it does, where nobody says that its socket is there.
const LOOK: Duration = Duration::from_millis(20);

/// A container that runs. Dropped instead of stopped, it is removed in the background.
pub(super) struct Container {
    held: Mutex<Option<Held>>,
    jobs: LocalWorkspace,
    /// What steps find in their environment; `None` is what this machine has.
    pub(super) variables: Option<Arc<[Bytes]>>,
}

/// What is to be let go.
struct Held {
    engine: Arc<dyn ContainerEngine>,
    id: String,
    scratch: Box<dyn Sandbox>,
    /// Let go of when the container is.
    _network: Option<Membership>,
}

/// For whom a container is made: what its labels say.
#[derive(Clone, Debug)]
pub(super) struct Purpose {
    /// The job whose number names the directory of the container.
    pub(super) plan: JobPlan,
    /// More labels.
    pub(super) labels: BTreeMap<String, String>,
}

impl Container {
    /// Makes one and waits until its agent answers. `limits` are over those of the options where they are tighter.
    pub(super) async fn start(
        host: &OciHost,
        options: &OciOptions,
        machine: &Arc<dyn Workspace>,
        purpose: Purpose,
    ) -> Result<Self, ExecutorError> {
        let agent = host.options.agent.path()?;
        let limits = purpose.plan.limits;
        let of_job = match &purpose.plan.place {
            Place::Directory(path) => Some(path.clone()),
            Place::Sandbox => None,
        };
        let Chosen { engine, image } = host.choose(&wanted(options, &limits, machine.limits())).await?;
        let plan = JobPlan { place: Place::Sandbox, limits: Limits::default(), ..purpose.plan };
        let mut scratch = machine.setup_job(plan).await?;
        let started = async {
            let directories = Directories::make(scratch.as_mut()).await?;
            let network = network_of(host, options, &engine, &purpose.labels, scratch_name(&directories)).await?;
            let names = aliases(["executr.executor", "executr.name"].map(|label| purpose.labels.get(label)));
            let mut plan = plan_of(host, options, &agent, &directories, limits, purpose.labels)?;
            plan.attached = network.as_ref().and_then(|network| network.attached(names));
            if let Some(called) = image.called.clone() {
                plan.image = called;
            }
            plan.mounts.extend(of_job.map(|path| Mount { source: path.clone(), target: path, read_only: false }));
            plan.user = options.user.as_ref().unwrap_or(&image.user).clone();
            let id = engine.start(plan).await?;
            Ok::<_, ExecutorError>((id, directories, network))
        };
        match started.await {
            Ok((id, directories, network)) => {
                let held = Held { engine, id, scratch, _network: network };
                Self::reached(held, options, &image, directories).await
            }
            Err(error) => {
                leave(scratch.as_mut()).await;
                Err(error)
            }
        }
    }

    async fn reached(
        mut held: Held,
        options: &OciOptions,
        image: &Image,
        directories: Directories,
    ) -> Result<Self, ExecutorError> {
        let user = options.user.as_ref().unwrap_or(&image.user);
        // Said in any case: what is put into job directories from outside may be somebody else's.
        let user = if user.is_empty() { "0:0".to_owned() } else { user.clone() };
        let run_as = RunAs { user, without_privileges: true };
        let answered = answer(held.engine.as_ref(), &held.id, &directories, run_as).await;
        match answered {
            Ok(jobs) => {
                let own = options.container_env.iter().map(|(name, value)| Bytes::from(format!("{name}={value}")));
                let variables = (!options.of_machine).then(|| image.env.iter().cloned().chain(own).collect());
                Ok(Self { held: Mutex::new(Some(held)), jobs, variables })
            }
            Err(error) => {
                held.release().await;
                Err(error)
            }
        }
    }

    /// Room for one job. A directory that is there already was mounted for it.
    pub(super) async fn sandbox(&self, job: JobPlan) -> Result<Box<dyn Sandbox>, ExecutorError> {
        self.jobs.setup_job(JobPlan { limits: Limits::default(), ..job }).await
    }

    /// Ends and removes it, with all that lies in its directories. Said again, it does nothing.
    pub(super) async fn stop(&self) {
        if let Some(mut held) = self.held.lock().await.take() {
            // A keeper that a job has stopped never says goodbye; it ends with its container.
            if tokio::time::timeout(GOODBYE, self.jobs.cleanup()).await.is_err() {
                tracing::debug!(container = held.id, "its keepers don't end by themselves");
            }
            held.release().await;
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let (Some(mut held), Ok(runtime)) = (self.held.get_mut().take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        runtime.spawn(async move { held.release().await });
    }
}

impl Held {
    async fn release(&mut self) {
        if let Err(error) = self.engine.remove(&self.id).await {
            tracing::warn!(container = self.id, %error, "a container stays behind");
        }
        leave(self.scratch.as_mut()).await;
    }
}

async fn leave(scratch: &mut dyn Sandbox) {
    if let Err(error) = scratch.cleanup().await {
        tracing::warn!(directory = %scratch.directory().display(), %error, "the directory of a container stays behind");
    }
}

/// The directories of one container on this machine.
struct Directories {
    scratch: PathBuf,
    agent: PathBuf,
    jobs: PathBuf,
}

impl Directories {
    async fn make(scratch: &mut dyn Sandbox) -> Result<Self, ExecutorError> {
        scratch.make_directory().await?;
        let scratch = scratch.directory().to_owned();
        let made = Self { agent: scratch.join("agent"), jobs: scratch.join("jobs"), scratch };
        for (path, mode) in [(&made.agent, 0o700), (&made.jobs, 0o711)] {
            let failed = |source| ExecutorError::Directory { path: path.clone(), source };
            DirBuilder::new().mode(mode).create(path).map_err(failed)?;
            // Exactly: steps of any user have to pass through the second.
            std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
        }
        Ok(made)
    }

    fn socket(&self) -> PathBuf {
        self.agent.join("socket")
    }
}

/// What is asked of the engine.
fn wanted<'a>(options: &'a OciOptions, limits: &Limits, offered: &LimitOffers) -> Wanted<'a> {
    let asked = [
        (limits.memory_bytes > 0 || options.memory.is_some(), &offered.memory),
        (limits.cpu_millis > 0 || options.cpus.is_some(), &offered.cpu),
        (limits.pids > 0 || options.pids.is_some(), &offered.pids),
    ];
    Wanted {
        engine: options.engine.as_deref(),
        image: (!options.of_machine).then_some(&options.image),
        pull: options.pull,
        network: options.network,
        user: options.user.as_deref(),
        login: options.login.as_ref(),
        refused_limit: asked.into_iter().find_map(|(is_asked, offer)| offer.clone().err().filter(|_| is_asked)),
    }
}

/// What the container's own directory is called.
fn scratch_name(directories: &Directories) -> std::borrow::Cow<'_, str> {
    directories.scratch.file_name().unwrap_or_default().to_string_lossy()
}

/// A place on the network of the container's run; of the container's own where it belongs to none.
async fn network_of(
    host: &OciHost,
    options: &OciOptions,
    engine: &Arc<dyn ContainerEngine>,
    labels: &BTreeMap<String, String>,
    own: std::borrow::Cow<'_, str>,
) -> Result<Option<Membership>, ContainerError> {
    if options.network != Network::Bridge {
        return Ok(None);
    }
    let run = labels.get("executr.run").or_else(|| labels.get("executr.job")).map_or(&*own, String::as_str);
    let mut of_run = labels.clone();
    of_run.retain(|name, _| !["executr.executor", "executr.job", "executr.step", "executr.name"].contains(&&**name));
    host.networks.join(engine, run, of_run).await.map(Some)
}

fn plan_of(
    host: &OciHost,
    options: &OciOptions,
    agent: &Path,
    directories: &Directories,
    limits: Limits,
    mut labels: BTreeMap<String, String>,
) -> Result<ContainerPlan, ContainerError> {
    if let Some(owner) = Owner::this() {
        labels.insert(OWNER.to_owned(), owner.mark());
    }
    let same = |path: &Path, read_only| Mount { source: path.to_owned(), target: path.to_owned(), read_only };
    // In a root that can't be written there is room only where something lies over it.
    let base = if options.of_machine { "/run/.executr" } else { "/.executr" };
    let [program, run, socket] = ["agent", "run", "run/socket"].map(|name| format!("{base}/{name}"));
    let mut mounts = vec![
        Mount { source: agent.to_owned(), target: program.clone().into(), read_only: true },
        Mount { source: directories.agent.clone(), target: run.into(), read_only: false },
        same(&directories.jobs, false),
    ];
    mounts.extend(host.options.programs.as_deref().filter(|path| path.is_dir()).map(|path| same(path, true)));
    let wrong =
        |text| ContainerError::Settings(format!("`{text}` is no mount; write SOURCE:TARGET or SOURCE:TARGET:ro"));
    mounts.extend(options.mounts().map_err(wrong)?);
    let tighter = |one: u64, other: u64| if one == 0 || other == 0 { one.max(other) } else { one.min(other) };
    let name = scratch_name(directories);
    Ok(ContainerPlan {
        name: format!("executr-{name}-{}-{}", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed)),
        image: options.image.clone(),
        machine: options.of_machine.then(|| {
            // Where the job's own directory is, others' are, too.
            let hidden = host.options.direct.iter().flat_map(|direct| direct.hidden.clone());
            hidden.chain(directories.scratch.parent().map(Path::to_owned)).collect()
        }),
        user: String::new(),
        command: vec![program, "serve".to_owned(), socket],
        labels,
        mounts,
        tmpfs: options.tmpfs.iter().map(|text| tmpfs(text)).collect(),
        network: options.network,
        attached: None,
        nano_cpus: tighter(options.cpus.map_or(0, |cpus| cpus.0.into()), limits.cpu_millis.into()) * 1_000_000,
        memory: tighter(options.memory.map_or(0, |memory| memory.0), limits.memory_bytes),
        pids: u32::try_from(tighter(options.pids.unwrap_or(0).into(), limits.pids.into())).unwrap_or(u32::MAX),
        read_only: options.read_only,
    })
}

fn tmpfs(text: &str) -> (String, String) {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    (path.to_owned(), options.to_owned())
}

/// Waits until the agent takes a call, or the container has ended.
async fn answer(
    engine: &dyn ContainerEngine,
    id: &str,
    directories: &Directories,
    run_as: RunAs,
) -> Result<LocalWorkspace, ExecutorError> {
    let appearing = Appearing::in_directory(&directories.agent);
    let reached = async {
        let deadline = Instant::now() + ANSWER;
        loop {
            let source = KeeperSource::Socket(directories.socket());
            match LocalWorkspace::open(directories.jobs.clone(), source, run_as.clone()).await {
                Err(ExecutorError::Agent(KeeperError::Call { .. })) if Instant::now() < deadline => {}
                Err(ExecutorError::Agent(KeeperError::Call { .. })) => return Err(ContainerError::Silent.into()),
                reached => return reached,
            }
            appearing.next(LOOK).await;
        }
    };
    tokio::select! {
        reached = reached => reached,
        ended = engine.ended(id) => Err(ContainerError::Ended(match ended {
            Ok(code) => format!("with exit code {code}"),
            Err(error) => error.to_string(),
        })
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str, limits: Limits) -> ContainerPlan {
        let options: OciOptions = serde_json::from_str(json).expect("options");
        let directories = Directories { scratch: "/w/j".into(), agent: "/w/j/agent".into(), jobs: "/w/j/jobs".into() };
        plan_of(&OciHost::default(), &options, Path::new("/agent"), &directories, limits, BTreeMap::new())
            .expect("plan")
    }

    #[test]
    fn the_tighter_bound_counts() {
        let limits = Limits { cpu_millis: 500, memory_bytes: 0, pids: 9 };
        let plan = plan(r#"{"image": "i", "cpus": "2", "memory": "1Ki", "pids": 5}"#, limits);
        assert_eq!((plan.nano_cpus, plan.memory, plan.pids), (500_000_000, 1024, 5));
    }

    #[test]
    fn a_container_bears_its_owner_and_job_directories_keep_their_path() {
        let plan = plan(r#"{"image": "i", "tmpfs": ["/t", "/u:size=1m"]}"#, Limits::default());
        assert!(plan.labels.contains_key(OWNER));
        assert!(plan.mounts.iter().any(|mount| mount.source == mount.target && mount.target.ends_with("jobs")));
        assert!(plan.mounts[0].read_only, "nobody in a container changes the agent");
        assert_eq!(plan.tmpfs, [("/t".into(), String::new()), ("/u".into(), "size=1m".into())]);
        assert!(plan.name.starts_with("executr-j-"), "{}", plan.name);
    }
}
