//! Containers without a daemon: run by crun or runc from this process, in images of our own store.
//!
//! - [`images`]: where the layers of an image come from; `stored`: our own store of them;
//! - [`runtime`]: which program runs containers;
//! - `seccomp`, `bundle`: what it is told;
//! - `machine`: this machine's own files in the place of an image's;
//! - `users`: what a user who isn't root can have;
//! - `record`: a container's directory, with its labels;
//! - `running`: one that was started.
//!
//! ```text
//! this process ── pipe ── agent (stage) ── crun ── agent (the first process) ── keepers ── steps
//!                         the layers, mounted in a namespace of its own
//! ```
//!
//! A container is run from a stage: the agent, which mounts the image's layers where nobody else sees them, makes the
//! control groups that bound it, and removes all of it at the end. It ends with this process, because what it holds
//! on to is a pipe. What is left when somebody kills the stage as well is a directory with its owner's mark, control groups
//! with theirs, and a first process that ends by itself: [`remove`](crate::oci::ContainerEngine::remove) puts an end to them.

mod bundle;
mod images;
mod machine;
mod record;
mod running;
mod runtime;
mod seccomp;
#[cfg(feature = "oci")]
mod stored;
mod users;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

pub use images::{Images, Layers};
pub use runtime::{Runtime, RuntimeKind};
#[cfg(feature = "oci")]
pub use stored::StoredImages;
pub(super) use users::can_become;
pub use users::others;

use super::engine::{ContainerEngine, ContainerError, ContainerPlan, Image, Owned};
use super::options::Pull;
use super::owner::{OWNER, Owner};
use bundle::Surroundings;
use record::Record;
use running::Running;
use users::Users;

/// Numbers containers of this process, so that no two of them share a control group.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Where things are for the direct engine.
#[derive(Clone, Debug)]
pub struct DirectOptions {
    /// Containers' directories are made here; not in memory, since what jobs write outside their directories is in them.
    pub state: PathBuf,
    /// Where images are.
    pub images: Arc<dyn Images>,
    /// What of this machine jobs that are isolated on it don't see, beside what is nobody's business on any: the home of
    /// whoever runs this, and where they keep data.
    pub hidden: Vec<PathBuf>,
    /// Where crun and runc are looked for.
    pub programs: Vec<PathBuf>,
}

/// The engine.
pub(super) struct Direct {
    options: DirectOptions,
    runtime: Runtime,
    agent: PathBuf,
    /// Those that were asked for: what is named once is used again, and mustn't be collected in between.
    known: Mutex<HashMap<String, Arc<Layers>>>,
    running: Mutex<HashMap<String, Arc<Container>>>,
}

/// One of ours.
struct Container {
    running: Running,
    /// Its layers stay for as long as it is there.
    _layers: Option<Arc<Layers>>,
}

impl Direct {
    /// Containers run from `agent`, if that can be done on this machine: one is tried.
    ///
    /// # Errors
    /// When this machine lacks something for it.
    pub(super) async fn open(options: DirectOptions, agent: PathBuf) -> Result<Self, ContainerError> {
        let lacking = |tried: String| ContainerError::NoEngine { tried };
        let runtime = Runtime::find(&options.programs)
            .ok_or_else(|| lacking("neither crun nor runc is installed (Debian: `apt-get install crun`)".to_owned()))?;
        let engine = Self { options, runtime, agent, known: Mutex::default(), running: Mutex::default() };
        match engine.try_mounting().await {
            Ok(()) => Ok(engine),
            Err(problem) => Err(lacking(format!("{} can't be used: {problem}", engine.runtime.program.display()))),
        }
    }

    /// Mounts a root and has the runtime tell its version beside it.
    async fn try_mounting(&self) -> Result<(), String> {
        let name = format!("try-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let labels = Owner::this().map(|owner| (OWNER.to_owned(), owner.mark())).into_iter().collect();
        let said = |error: io::Error| error.to_string();
        let record = Record::create(&self.options.state, &name, &labels)
            .map_err(|error| format!("{}: {error}", self.options.state.display()))?;
        let mut words = self.stage(&record, Users::least());
        words.extend(overlay(&record, &[]).map_err(said)?);
        words.push("--".into());
        words.extend(self.runtime.command(&record.runtime(), ["--version".as_ref()]));
        let end = Running::start(&self.agent, &words, &record)
            .map_err(said)?
            .ended()
            .await
            .map_err(|error| error.to_string())?;
        if end.code == 0 { Ok(()) } else { Err(end.said) }
    }

    fn prepare(
        &self,
        plan: &ContainerPlan,
        layers: Option<&Layers>,
    ) -> Result<(Record, Vec<OsString>), ContainerError> {
        let failed = |source: io::Error| refused("make the container", &source.to_string());
        for mount in &plan.mounts {
            if let Err(error) = fs::metadata(&mount.source) {
                return Err(refused("mount a directory", &format!("{}: {error}", mount.source.display())));
            }
        }
        let users = Users::of(&plan.user)?;
        let record = Record::create(&self.options.state, &plan.name, &plan.labels).map_err(failed)?;
        let made = self.fill(&record, plan, users, layers).map_err(failed);
        match made {
            Ok(arguments) => Ok((record, arguments)),
            Err(error) => {
                // Nothing was started: there are only files of our own in it.
                let _ = fs::remove_dir_all(record.directory());
                Err(error)
            }
        }
    }

    /// Writes what the runtime reads, and says what the stage is to do.
    fn fill(
        &self,
        record: &Record,
        plan: &ContainerPlan,
        users: Users,
        layers: Option<&Layers>,
    ) -> io::Result<Vec<OsString>> {
        let (root, hosts) = (record.root(), record.file("hosts"));
        let has_hosts = plan.machine.is_none();
        if has_hosts {
            fs::write(&hosts, "127.0.0.1\tlocalhost\n::1\tlocalhost\n")?;
        }
        let around =
            Surroundings { root: &root, hosts: has_hosts.then_some(&hosts), is_rootless: users != Users::Machine };
        let config = bundle::config(plan, &around);
        fs::write(record.file("config.json"), serde_json::to_vec(&config)?)?;

        let mut words = self.stage(record, users);
        if plan.memory > 0 || plan.nano_cpus > 0 || plan.pids > 0 {
            let pair = |name: &str, value: u64| [name.into(), value.to_string().into()];
            words.extend(pair("--owner", std::process::id().into()));
            words.extend(pair("--number", NEXT.fetch_add(1, Ordering::Relaxed).into()));
            for (name, value) in
                [("--memory", plan.memory), ("--cpu", plan.nano_cpus.div_ceil(1_000_000)), ("--pids", plan.pids.into())]
            {
                words.extend((value > 0).then(|| pair(name, value)).into_iter().flatten());
            }
        }
        match layers {
            Some(layers) => words.extend(overlay(record, &layers.directories)?),
            None => words.extend(["--machine".into(), root.clone().into()]),
        }
        let directory = record.directory().as_os_str();
        words.push("--".into());
        words.extend(
            self.runtime
                .command(&record.runtime(), ["run".as_ref(), "--bundle".as_ref(), directory, OsStr::new(&plan.name)]),
        );
        Ok(words)
    }

    /// What every stage of this machine does.
    fn stage(&self, record: &Record, users: Users) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["--remove".into(), record.directory().into()];
        words.extend(users.words().map(OsString::from));
        if self.runtime.kind == RuntimeKind::Crun {
            words.push("--hide-unified".into());
        }
        words
    }

    /// Ends what nobody holds any more, and removes it.
    async fn remove_left(&self, name: &str) -> Result<(), ContainerError> {
        let record = Record::at(&self.options.state, name);
        if !record.directory().is_dir() {
            return Ok(());
        }
        let left = |message: &str| refused("remove the container", message);
        let mut words = self.stage(&record, Users::to_remove());
        words.push("--".into());
        // One that its runtime knows nothing of is no error.
        words
            .extend(self.runtime.command(&record.runtime(), ["delete".as_ref(), "--force".as_ref(), OsStr::new(name)]));
        // There is one when the container was started: another is made.
        let _ = fs::remove_file(record.file("log"));
        let removing = Running::start(&self.agent, &words, &record).map_err(|error| left(&error.to_string()))?;
        let end = removing.ended().await?;
        if record.directory().exists() {
            return Err(left(&end.said));
        }
        Ok(())
    }

    fn container(&self, id: &str) -> Option<Arc<Container>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }
}

#[async_trait]
impl ContainerEngine for Direct {
    async fn image(&self, name: &str, pull: Pull) -> Result<Image, ContainerError> {
        let layers = Arc::new(self.options.images.image(name, pull).await?);
        let image = layers.image.clone();
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), layers);
        Ok(image)
    }

    async fn start(&self, plan: ContainerPlan) -> Result<String, ContainerError> {
        let layers = if plan.machine.is_some() {
            None
        } else {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&plan.image).cloned();
            let missing =
                || ContainerError::Image { image: plan.image.clone(), message: "nobody has asked for it".to_owned() };
            Some(known.ok_or_else(missing)?)
        };
        let (record, arguments) = self.prepare(&plan, layers.as_deref())?;
        let running = Running::start(&self.agent, &arguments, &record).map_err(|error| {
            let _ = fs::remove_dir_all(record.directory());
            refused("start the container", &format!("{}: {error}", self.agent.display()))
        })?;
        let container = Arc::new(Container { running, _layers: layers });
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(plan.name.clone(), container);
        Ok(plan.name)
    }

    async fn ended(&self, id: &str) -> Result<i64, ContainerError> {
        let Some(container) = self.container(id) else {
            return Err(refused("say how the container ended", "it isn't one of this worker's"));
        };
        let end = container.running.ended().await?;
        if end.said.is_empty() { Ok(end.code) } else { Err(refused("run the container", &end.said)) }
    }

    async fn remove(&self, id: &str) -> Result<(), ContainerError> {
        let Some(container) = self.container(id) else { return self.remove_left(id).await };
        container.running.release();
        let end = container.running.ended().await?;
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        if Record::at(&self.options.state, id).directory().exists() {
            tracing::debug!(container = id, said = end.said, "a stage didn't clear up");
            return self.remove_left(id).await;
        }
        Ok(())
    }

    async fn labelled(&self, label: &str) -> Result<Vec<Owned>, ContainerError> {
        let found = Record::labelled(&self.options.state, label);
        let found = found.map_err(|error| refused("list containers", &error.to_string()))?;
        Ok(found.into_iter().map(|(id, owner)| Owned { id, owner }).collect())
    }
}

/// What would run containers from `agent` here, tried; `None` when neither crun nor runc is installed.
///
/// # Errors
/// With why they can't be run.
pub async fn look(options: DirectOptions, agent: PathBuf) -> Result<Option<Runtime>, String> {
    let Some(runtime) = Runtime::find(&options.programs) else { return Ok(None) };
    let opened = Direct::open(options, agent).await;
    opened.map(|_| Some(runtime)).map_err(|error| match error {
        ContainerError::NoEngine { tried } => tried,
        error => error.to_string(),
    })
}

/// What tells a stage to mount these layers, of which the lowest comes first.
fn overlay(record: &Record, layers: &[PathBuf]) -> io::Result<Vec<OsString>> {
    let mut words = Vec::new();
    let mut add = |name: &str, path: &Path| words.extend([OsString::from(name), path.into()]);
    for (name, path) in [("--overlay", record.root()), ("--upper", record.upper()), ("--work", record.file("work"))] {
        add(name, &path);
    }
    if layers.is_empty() {
        // An overlay needs one at least; an image may hold nothing.
        let empty = record.file("empty");
        fs::create_dir(&empty)?;
        add("--layer", &empty);
    }
    layers.iter().rev().for_each(|layer| add("--layer", layer));
    Ok(words)
}

fn refused(what: &'static str, message: &str) -> ContainerError {
    ContainerError::Refused { what, message: message.to_owned() }
}
