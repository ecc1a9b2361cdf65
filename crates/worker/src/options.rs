//! How a worker is to be.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use executr_api::QueueWeight;
use executr_engine::binary_cache::BinaryCacheOptions;
use executr_engine::output::OutputOptions;
use executr_engine::{HostContext, KeptDirectories, Policy, TreeOptions};
use executr_executors::local::KeeperOptions;
use executr_executors::oci::OciHostOptions;
use executr_executors::ssh::SshHostOptions;
use executr_spec::QueueName;

/// How a worker is to be. Nothing is looked up anywhere else.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// What its operator calls it; its id is made of this.
    pub name: String,
    /// The address by which it knows itself, if any.
    pub ip: Option<String>,
    /// The queues it serves; at least one.
    pub queues: Vec<QueueWeight>,
    /// What its operator says of it.
    pub labels: BTreeMap<String, String>,
    /// How many jobs it runs at a time; at least 1.
    pub slots: u32,
    /// What jobs may ask for.
    pub policy: Policy,
    /// The surroundings of this process.
    pub host: HostContext,
    /// How to start keepers.
    pub keeper: KeeperOptions,
    /// Where containers come from.
    pub oci: OciHostOptions,
    /// How other hosts are reached.
    pub hosts: SshHostOptions,
    /// Where job directories are made.
    pub work_dir: PathBuf,
    /// Where results and output lie that the coordinator can't take yet. May be shared by several workers, and a later
    /// one delivers what an earlier one left.
    pub spool_dir: PathBuf,
    /// Where binaries are kept.
    pub cache: BinaryCacheOptions,
    /// Where repositories and artifacts are kept.
    pub trees: TreeOptions,
    /// Where directories of jobs go at their end, when they aren't removed; those of `hooks` are its scripts' business.
    pub kept: Option<KeptDirectories>,
    /// Bounds on output.
    pub output: OutputOptions,
    /// How long processes may take to end by themselves after SIGTERM.
    pub kill_grace: Duration,
    /// How long the steps together may take that run after their job was cancelled, or its time was over.
    pub aftermath: Duration,
    /// How long an exchange may stay open while jobs run: their beat.
    pub heartbeat_interval: Duration,
    /// How long an answer may take on top of what the exchange may stay open.
    pub exchange_patience: Duration,
    /// After so long without the coordinator it says that it claims nothing new, and a draining worker stops waiting.
    pub network_timeout: Duration,
    /// After so many jobs it drains and ends.
    pub max_total_jobs: Option<u64>,
    /// After so long it drains and ends.
    pub max_active_time: Option<Duration>,
}

impl WorkerOptions {
    /// A worker with one slot and the usual bounds, which keeps what it keeps below `directory`.
    #[must_use]
    pub fn new(name: impl Into<String>, directory: &std::path::Path, keeper: KeeperOptions) -> Self {
        Self {
            name: name.into(),
            ip: None,
            queues: vec![QueueWeight { queue: QueueName::default(), weight: 1 }],
            labels: BTreeMap::new(),
            slots: 1,
            policy: Policy::default(),
            host: HostContext::default(),
            keeper,
            oci: OciHostOptions::default(),
            hosts: SshHostOptions::default(),
            work_dir: directory.join("jobs"),
            spool_dir: directory.join("spool"),
            cache: BinaryCacheOptions::new(directory.join("cache")),
            trees: TreeOptions { directory: directory.join("trees"), max_bytes: Some(10 << 30) },
            kept: None,
            output: OutputOptions::new(directory.join("spool")),
            kill_grace: Duration::from_secs(5),
            aftermath: Duration::from_secs(300),
            heartbeat_interval: Duration::from_secs(5),
            exchange_patience: Duration::from_secs(10),
            network_timeout: Duration::from_secs(60),
            max_total_jobs: None,
            max_active_time: None,
        }
    }
}
