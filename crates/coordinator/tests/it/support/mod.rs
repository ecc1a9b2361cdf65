//! A coordinator with its store, and a worker that is moved by hand.

mod plans;
mod probe;

use std::collections::BTreeMap;

use std::sync::Arc;
use std::time::Duration;

use executr_api::output::{OutputChunk, RecordWriter, Stream};
use executr_api::{
    ApiError, AttemptResult, Client, Fence, JobView, Lease, Orders, Outcome, QueueWeight, Report, Submission, Verdict,
    Version, WorkerApi, WorkerCounters, WorkerHello, WorkspaceId,
};
use executr_coordinator::{Coordinator, Options, TenantClient, Unobserved};
use executr_spec::{ExecutorKind, JobId, Offers, Tenant, Timestamp, WorkerId};
use executr_store::model::ModelStore;
use executr_store::postgres::{PostgresOptions, PostgresStore};
use executr_store::sqlite::{SqliteOptions, SqliteStore};
use executr_store::{Clock, Store};
use executr_tests::postgres::Database;
use tempfile::TempDir;
use tokio::time::Instant;

pub(crate) use plans::{Plan, events, follow};
pub(crate) use probe::Probe;

/// The lease of all tests.
pub(crate) const LEASE: Duration = Duration::from_secs(15);

/// The store's clock goes with the runtime's, which tests pause.
#[derive(Debug)]
struct RuntimeClock(Instant);

impl Clock for RuntimeClock {
    fn now(&self) -> Timestamp {
        Timestamp(1_767_225_600_000_000).plus(self.0.elapsed())
    }
}

/// A store in memory, watched.
pub(crate) fn store() -> Arc<Probe> {
    Arc::new(Probe::new(Arc::new(ModelStore::new(Arc::new(RuntimeClock(Instant::now()))))))
}

pub(crate) fn options() -> Options {
    Options { lease: LEASE, seed: Some(1), ..Options::default() }
}

pub(crate) async fn start(store: &Arc<Probe>) -> Coordinator {
    start_on(Arc::clone(store) as Arc<_>).await
}

pub(crate) async fn start_on(store: Arc<dyn Store>) -> Coordinator {
    Coordinator::start(store, options(), Arc::new(Unobserved)).await.unwrap()
}

/// The embedded store in a fresh directory.
pub(crate) async fn embedded() -> (TempDir, Arc<dyn Store>) {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(SqliteOptions::new(directory.path())).await.unwrap();
    (directory, Arc::new(store))
}

/// A connection to a PostgreSQL database.
pub(crate) async fn connect(database: &Database) -> Arc<dyn Store> {
    Arc::new(PostgresStore::connect(PostgresOptions::new(database.url())).await.unwrap())
}

/// A fresh PostgreSQL database; `None`, after saying why, without PostgreSQL.
pub(crate) async fn database() -> Option<Database> {
    let database = executr_tests::postgres::database()?;
    PostgresStore::migrate(&PostgresOptions::new(database.url())).await.unwrap();
    Some(database)
}

pub(crate) fn client(coordinator: &Coordinator) -> TenantClient {
    coordinator.client(Tenant::default())
}

pub(crate) fn job(text: &str) -> Submission {
    serde_json::from_str(text).unwrap()
}

/// A job that only asks to be run.
pub(crate) fn plain() -> Submission {
    job(r#"{"steps":[{"argv":["true"]}]}"#)
}

pub(crate) async fn submit(coordinator: &Coordinator, text: &str) -> JobView {
    client(coordinator).submit(job(text)).await.unwrap()
}

pub(crate) async fn submit_plain(coordinator: &Coordinator, count: usize) -> Vec<JobId> {
    let jobs = client(coordinator).submit_bulk(vec![plain(); count]).await.unwrap();
    jobs.into_iter().map(|job| job.id).collect()
}

pub(crate) fn offers() -> Offers {
    Offers { executors: [ExecutorKind::Local].into(), ..Offers::default() }
}

/// A worker as a coordinator sees one.
#[derive(Clone)]
pub(crate) struct Worker {
    pub(crate) hello: WorkerHello,
    pub(crate) sequence: u64,
    pub(crate) held: Vec<Fence>,
    pub(crate) finished: Vec<AttemptResult>,
    pub(crate) returned: Vec<Fence>,
    pub(crate) draining: bool,
    pub(crate) cleaned: Vec<WorkspaceId>,
    pub(crate) wait: Duration,
    /// All it was told to run.
    pub(crate) leases: BTreeMap<Fence, Lease>,
}

impl Worker {
    pub(crate) fn new(id: &str, slots: u32) -> Self {
        Self {
            hello: WorkerHello {
                id: WorkerId(id.to_owned()),
                name: id.to_owned(),
                ip: None,
                version: Version::current(),
                slots,
                queues: vec![QueueWeight { queue: "default".parse().unwrap(), weight: 1 }],
                offers: offers(),
            },
            sequence: 0,
            held: Vec::new(),
            finished: Vec::new(),
            returned: Vec::new(),
            draining: false,
            cleaned: Vec::new(),
            wait: Duration::ZERO,
            leases: BTreeMap::new(),
        }
    }

    pub(crate) fn waiting(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    pub(crate) fn serving(mut self, queues: &[(&str, u32)]) -> Self {
        self.hello.queues = queues
            .iter()
            .map(|(queue, weight)| QueueWeight { queue: queue.parse().unwrap(), weight: *weight })
            .collect();
        self
    }

    pub(crate) fn report(&mut self) -> Report {
        self.sequence += 1;
        Report {
            worker: self.hello.clone(),
            sequence: self.sequence,
            held: self.held.clone(),
            finished: self.finished.clone(),
            returned: self.returned.clone(),
            cleaned: self.cleaned.clone(),
            draining: self.draining,
            wait_ms: self.wait.as_millis() as u64,
            counters: WorkerCounters::default(),
        }
    }

    /// One exchange whose answer is lost.
    pub(crate) async fn exchange_unheard(&mut self, coordinator: &Coordinator) -> Orders {
        coordinator.exchange(self.report()).await.unwrap()
    }

    /// One exchange, and does what it is told.
    pub(crate) async fn exchange(&mut self, coordinator: &Coordinator) -> Orders {
        let orders = self.exchange_unheard(coordinator).await;
        self.follow(&orders);
        orders
    }

    pub(crate) fn follow(&mut self, orders: &Orders) {
        for verdict in &orders.verdicts {
            self.finished.retain(|result| result.fence != verdict.fence);
            self.returned.retain(|fence| *fence != verdict.fence);
        }
        self.held.retain(|fence| !orders.releases.contains(fence));
        for lease in &orders.leases {
            self.leases.insert(lease.fence, lease.clone());
            let known = self.held.contains(&lease.fence)
                || self.finished.iter().any(|result| result.fence == lease.fence)
                || self.returned.contains(&lease.fence);
            if !known {
                self.held.push(lease.fence);
            }
        }
    }

    /// The lease it holds on the job of this name in its run.
    pub(crate) fn lease(&self, name: &str) -> &Lease {
        let named = |fence: &&Fence| self.leases[*fence].spec.read().unwrap().workflow.unwrap().name == name;
        let fence = self.held.iter().find(named).unwrap_or_else(|| panic!("{name} is not held"));
        &self.leases[fence]
    }

    /// The names of the jobs it holds, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let name = |fence: &Fence| self.leases[fence].spec.read().unwrap().workflow.unwrap().name;
        let mut names: Vec<String> = self.held.iter().map(name).collect();
        names.sort();
        names
    }

    /// Ends the job of this name in its run; the next exchange tells.
    pub(crate) fn end_named(&mut self, name: &str, outcome: Outcome) {
        self.end(self.lease(name).fence, outcome);
    }

    /// Ends an attempt it holds; the next exchange tells.
    pub(crate) fn end(&mut self, fence: Fence, outcome: Outcome) {
        assert!(self.held.contains(&fence), "{fence} is not held");
        self.held.retain(|held| *held != fence);
        self.finished.push(result(fence, outcome));
    }

    /// Ends all it holds well.
    pub(crate) fn end_all(&mut self) {
        for fence in self.held.clone() {
            self.end(fence, Outcome::Succeeded);
        }
    }
}

pub(crate) fn result(fence: Fence, outcome: Outcome) -> AttemptResult {
    AttemptResult {
        fence,
        outcome,
        exit_code: Some(i32::from(outcome != Outcome::Succeeded)),
        error_message: None,
        retryable: true,
        fails_run: false,
        usage: None,
        steps: Vec::new(),
        output: None,
        output_bytes: 0,
        duration_us: 1_000,
        outputs: BTreeMap::new(),
        artifacts: Vec::new(),
    }
}

pub(crate) fn fences(orders: &Orders) -> Vec<Fence> {
    orders.leases.iter().map(|lease| lease.fence).collect()
}

pub(crate) fn verdicts(orders: &Orders) -> Vec<Verdict> {
    orders.verdicts.iter().map(|verdict| verdict.verdict).collect()
}

pub(crate) fn chunk(offset: u64, stream: Stream, bytes: &[u8]) -> OutputChunk {
    let mut writer = RecordWriter::default();
    writer.push(stream, bytes);
    OutputChunk { offset, records: writer.take() }
}

pub(crate) async fn append(coordinator: &Coordinator, fence: &Fence, offset: u64, text: &str) -> Result<u64, ApiError> {
    coordinator.append_output(fence, "", chunk(offset, Stream::Stdout, text.as_bytes())).await
}

/// Lets everything run that can run without time passing.
pub(crate) async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// Opens an exchange and lets it come to rest.
pub(crate) async fn open(coordinator: &Coordinator, worker: &mut Worker) -> tokio::task::JoinHandle<Orders> {
    let (coordinator, report) = (coordinator.clone(), worker.report());
    let open = tokio::spawn(async move { coordinator.exchange(report).await.unwrap() });
    settle().await;
    open
}
