//! Containers of one small image: ours without a daemon, a bare runtime's, and Docker's.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use executr_agent_protocol::driver::{Cgroups, KeeperOptions};
use executr_executors::contract::{Event, Executor as _, Exit, JobPlan, Limits, Place, Program, StepPlan, Workspace};
use executr_executors::local::LocalExecutor;
use executr_executors::oci::direct::{DirectOptions, Images, Layers, Runtime};
use executr_executors::oci::{
    AgentProgram, ContainerError, Image, OciHost, OciHostOptions, OciOptions, OciWorkspace, Pull,
};
use executr_spec::JobId;
use executr_tests::docker::{self, IMAGE};
use executr_tests::{program, rootfs};
use serde_json::{Value, json};

/// What every container runs.
const TRUE: &str = "/bin/true";

/// Numbers containers of the bare runtime.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// An image that is there.
#[derive(Debug)]
struct There(PathBuf);

#[async_trait]
impl Images for There {
    async fn image(&self, _name: &str, _pull: Pull) -> Result<Layers, ContainerError> {
        Ok(Layers { image: Image::default(), directories: vec![self.0.clone()], held: Arc::new(()) })
    }
}

/// Jobs that have a container each, without a daemon.
pub struct Direct {
    containers: OciWorkspace,
    machine: Arc<dyn Workspace>,
}

fn programs() -> Vec<PathBuf> {
    ["/usr/local/bin", "/usr/bin", "/usr/sbin"].map(PathBuf::from).into()
}

/// Makes the image's files in `place`; `None` (after saying so) where they can't be made.
#[must_use]
pub fn root(place: &Path) -> Option<PathBuf> {
    let root = place.join("rootfs");
    rootfs::make(&root).then_some(root)
}

impl Direct {
    /// With everything in `place`, from an image with the files of `root`.
    ///
    /// # Errors
    /// When there can be no containers.
    pub async fn open(place: &Path, root: &Path) -> io::Result<Self> {
        let agent = program::contained_agent();
        let keeper = KeeperOptions { program: agent.clone(), args: vec![], cgroups: Cgroups::WhereWritable };
        let machine = LocalExecutor { work_dir: place.join("work"), keeper };
        let machine = machine.setup_workspace().await.map_err(io::Error::other)?;
        let direct = DirectOptions {
            state: place.join("containers"),
            images: Arc::new(There(root.to_owned())),
            hidden: Vec::new(),
            programs: programs(),
        };
        let host = OciHostOptions {
            agent: AgentProgram::new(move || Ok(agent.clone())),
            direct: Some(direct),
            ..OciHostOptions::default()
        };
        let settings = json!({"image": "busybox", "mode": "isolated", "network": "none", "engine": "direct"});
        let options: OciOptions = serde_json::from_value(settings)?;
        let host = Arc::new(OciHost::new(host));
        let id = JobId(uuid::Uuid::new_v4());
        let containers = OciWorkspace::open(host, Arc::clone(&machine), id, options, [].into()).await;
        Ok(Self { containers: containers.map_err(io::Error::other)?, machine })
    }

    /// Runs one job, from its lease to its result.
    ///
    /// # Errors
    /// When it fails.
    pub async fn job(&self) -> io::Result<Duration> {
        let begun = Instant::now();
        let job = JobId(uuid::Uuid::new_v4());
        let plan = JobPlan { job, attempt: 1, place: Place::Sandbox, limits: Limits::default() };
        let mut sandbox = self.containers.setup_job(plan).await.map_err(io::Error::other)?;
        let step = StepPlan { program: Program::Argv(vec![TRUE.into()]), env: Vec::new(), workdir: None, last: true };
        let mut execution = sandbox.execute(step).await.map_err(io::Error::other)?;
        let mut exit = None;
        while let Some(event) = execution.next().await.map_err(io::Error::other)? {
            if let Event::Ended(ended) = event {
                exit = Some(ended.exit);
            }
        }
        drop(execution);
        sandbox.cleanup().await.map_err(io::Error::other)?;
        if exit == Some(Exit::Code(0)) { Ok(begun.elapsed()) } else { Err(io::Error::other(format!("{exit:?}"))) }
    }

    /// Lets go of everything.
    pub async fn close(self) {
        self.containers.cleanup().await;
        self.machine.cleanup().await;
    }
}

/// A bundle that crun itself has written, for the files of `root`.
pub struct Bare {
    bundle: PathBuf,
    runtime: Runtime,
}

impl Bare {
    /// In `place`.
    ///
    /// # Errors
    /// When there is no runtime.
    pub fn new(place: &Path, root: &Path) -> io::Result<Self> {
        let runtime = Runtime::find(&programs()).ok_or_else(|| io::Error::other("neither crun nor runc is here"))?;
        let bundle = place.join("bundle");
        std::fs::create_dir(&bundle)?;
        let written = Command::new(&runtime.program).arg("spec").current_dir(&bundle).status()?;
        if !written.success() {
            return Err(io::Error::other("the runtime writes no bundle"));
        }
        let file = bundle.join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!([TRUE]);
        config["root"]["path"] = json!(root);
        std::fs::write(file, config.to_string())?;
        Ok(Self { bundle, runtime })
    }

    /// One `crun run`.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self) -> io::Result<Duration> {
        let begun = Instant::now();
        let mut run = Command::new(&self.runtime.program);
        run.args(["run", "--bundle"]).arg(&self.bundle);
        run.arg(format!("executr-bench-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        run.stdin(Stdio::null()).stdout(Stdio::null());
        // SAFETY: system calls on constants, nothing else.
        unsafe { run.pre_exec(without_unified) };
        if run.status()?.success() { Ok(begun.elapsed()) } else { Err(io::Error::other("it failed")) }
    }
}

/// crun refuses to run beside version 2 of control groups where those of version 1 count.
fn without_unified() -> io::Result<()> {
    // SAFETY: zero-ended constants.
    unsafe {
        if libc::unshare(libc::CLONE_NEWNS) < 0
            || libc::mount(
                std::ptr::null(),
                c"/".as_ptr(),
                std::ptr::null(),
                libc::MS_REC | libc::MS_PRIVATE,
                std::ptr::null(),
            ) < 0
        {
            return Err(io::Error::last_os_error());
        }
        // Not there on most machines.
        libc::umount2(c"/sys/fs/cgroup/unified".as_ptr(), libc::MNT_DETACH);
    }
    Ok(())
}

/// Docker, with the same image.
pub struct Docker(String);

impl Docker {
    /// The tests' own; `None` (after saying so) where there is none.
    #[must_use]
    pub fn start() -> Option<Self> {
        docker::engine().map(|engine| Self(engine.address()))
    }

    /// One `docker run --rm --network none`.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self) -> io::Result<Duration> {
        let begun = Instant::now();
        let mut run = Command::new("docker");
        run.args(["-H", &self.0, "run", "--rm", "--network", "none", IMAGE, TRUE]);
        let ended = run.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
        if ended.success() { Ok(begun.elapsed()) } else { Err(io::Error::other("docker run failed")) }
    }
}
