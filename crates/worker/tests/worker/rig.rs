//! A coordinator in memory, which does as the test says, and a worker that runs against it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use executr_api::output::{OutputChunk, Record, Records};
use executr_api::{
    ApiError, AttemptResult, ByteStream, ErrorCode, Fence, Lease, Orders, Report, ResultVerdict, RunContext, Verdict,
    WorkerApi, WorkspaceId,
};
use executr_spec::{Digest, JobId, JobSpec, LeaseId, SpecJson, Step, StepCommand};
use executr_worker::{
    Cgroups, KeeperOptions, Shutdown, ShutdownHandle, Worker, WorkerError, WorkerOptions, WorkerSummary,
};
use futures_util::StreamExt;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// What the coordinator knows, and how it behaves.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) waiting: VecDeque<Lease>,
    /// Leases handed out and not ended, as often as they are to be sent again.
    pub(crate) leased: HashMap<Fence, Lease>,
    pub(crate) cancels: Vec<Fence>,
    pub(crate) at_once: Vec<Fence>,
    pub(crate) releases: Vec<Fence>,
    pub(crate) drain: bool,
    pub(crate) results: BTreeMap<Fence, AttemptResult>,
    pub(crate) returned: Vec<Fence>,
    pub(crate) output: HashMap<Fence, Vec<OutputChunk>>,
    pub(crate) reports: Vec<Report>,
    /// Every call fails.
    pub(crate) away: bool,
    /// The next appends fail with a gap at this end.
    pub(crate) forget_output_after: Option<u64>,
    /// Sends every lease twice.
    pub(crate) stutters: bool,
    pub(crate) appends: usize,
    pub(crate) refuses: Option<ErrorCode>,
    pub(crate) open: usize,
    pub(crate) most_open: usize,
    pub(crate) lease_ms: u64,
    pub(crate) blobs: HashMap<Digest, Bytes>,
    /// Workspaces that are needed no more.
    pub(crate) workspaces: Vec<WorkspaceId>,
}

#[derive(Default)]
pub(crate) struct FakeCoordinator {
    pub(crate) state: Mutex<State>,
    changed: Notify,
}

impl FakeCoordinator {
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let value = change(&mut self.state.lock().unwrap());
        self.changed.notify_waiters();
        value
    }

    /// Hands out a job.
    pub(crate) fn submit(&self, spec: &JobSpec) -> Fence {
        self.submit_in(spec, None)
    }

    /// Hands out a job of a run.
    pub(crate) fn submit_in(&self, spec: &JobSpec, run: Option<RunContext>) -> Fence {
        let fence = Fence { job: JobId(Uuid::now_v7()), attempt: 1, lease: LeaseId(Uuid::new_v4()) };
        let lease = Lease { fence, spec: SpecJson::write(spec).unwrap(), token: String::new(), run: run.map(Box::new) };
        self.change(|state| state.waiting.push_back(lease));
        fence
    }

    pub(crate) fn submit_run(&self, script: &str) -> Fence {
        self.submit(&run(script))
    }

    /// Waits until `look` sees what it waits for.
    pub(crate) async fn until<T>(&self, what: &str, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let changed = self.changed.notified();
            if let Some(found) = look(&mut self.state.lock().unwrap()) {
                return found;
            }
            assert!(Instant::now() < deadline, "waited in vain: {what}");
            let _ = tokio::time::timeout(Duration::from_millis(50), changed).await;
        }
    }

    pub(crate) async fn result(&self, fence: Fence) -> AttemptResult {
        self.until("a result", |state| state.results.get(&fence).cloned()).await
    }

    /// All output of an attempt: appended before, and brought by its result.
    pub(crate) fn output(&self, fence: Fence) -> Vec<Record> {
        let state = self.state.lock().unwrap();
        let appended = state.output.get(&fence).into_iter().flatten();
        let brought = state.results.get(&fence).and_then(|result| result.output.as_ref());
        let mut end = 0;
        let mut records = Vec::new();
        for chunk in appended.chain(brought) {
            assert!(chunk.offset <= end, "bytes {end} to {} are missing", chunk.offset);
            records.extend(chunk.records.skip(end - chunk.offset).iter());
            end = end.max(chunk.end());
        }
        records
    }

    pub(crate) fn text(&self, fence: Fence) -> String {
        let mut text = Vec::new();
        for record in self.output(fence) {
            match record {
                Record::Data { bytes, .. } => text.extend_from_slice(&bytes),
                Record::Gap(skipped) => text.extend_from_slice(format!("[{skipped}]").as_bytes()),
            }
        }
        String::from_utf8(text).unwrap()
    }
}

fn away() -> ApiError {
    ApiError::new(ErrorCode::Unavailable, "the test's server is away")
}

/// Counts an exchange as open as long as it is.
struct Opened<'a>(&'a FakeCoordinator);

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().open -= 1;
    }
}

#[async_trait]
impl WorkerApi for FakeCoordinator {
    async fn exchange(&self, report: Report) -> Result<Orders, ApiError> {
        let deadline = tokio::time::Instant::now() + Duration::from_millis(report.wait_ms);
        let sequence = report.sequence;
        let mut orders = Orders::default();
        let _opened = {
            let mut state = self.state.lock().unwrap();
            state.open += 1;
            state.most_open = state.most_open.max(state.open);
            Opened(self)
        };
        self.change(|state| {
            if let Some(code) = state.refuses {
                return Err(ApiError::new(code, "the test's server refuses"));
            }
            if state.away {
                return Err(away());
            }
            for fence in &report.returned {
                state.leased.remove(fence);
                state.returned.push(*fence);
                orders.verdicts.push(ResultVerdict { fence: *fence, verdict: Verdict::Accepted });
            }
            for result in &report.finished {
                state.leased.remove(&result.fence);
                state.results.insert(result.fence, result.clone());
                orders.verdicts.push(ResultVerdict { fence: result.fence, verdict: Verdict::Accepted });
            }
            state.reports.push(report.clone());
            Ok(())
        })?;
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.state.lock().unwrap();
                if state.away {
                    return Err(away());
                }
                let newest = state.reports.last().is_none_or(|last| last.sequence <= sequence);
                if newest {
                    orders.lease_ms = state.lease_ms;
                    orders.drain = state.drain;
                    orders.cancels.append(&mut state.cancels);
                    orders.at_once.append(&mut state.at_once);
                    orders.releases.append(&mut state.releases);
                    orders.workspaces.append(&mut state.workspaces);
                    while !report.draining && state.leased.len() < report.worker.slots as usize {
                        let Some(lease) = state.waiting.pop_front() else { break };
                        state.leased.insert(lease.fence, lease.clone());
                        if state.stutters {
                            orders.leases.push(lease.clone());
                        }
                        orders.leases.push(lease);
                    }
                }
                if !newest || !orders.is_empty() {
                    return Ok(orders);
                }
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Ok(orders);
            }
        }
    }

    async fn append_output(&self, fence: &Fence, _token: &str, chunk: OutputChunk) -> Result<u64, ApiError> {
        self.change(|state| {
            if state.away {
                return Err(away());
            }
            state.appends += 1;
            let chunks = state.output.entry(*fence).or_default();
            if let Some(keep) = state.forget_output_after.take() {
                chunks.retain_mut(|chunk| {
                    let kept = keep.saturating_sub(chunk.offset);
                    let surplus = chunk.records.span().saturating_sub(kept);
                    chunk.records = first(&chunk.records, chunk.records.span() - surplus);
                    kept > 0
                });
            }
            let end = chunks.last().map_or(0, OutputChunk::end);
            if chunk.offset > end {
                return Err(ApiError::new(ErrorCode::OutputGap, "bytes are missing").with("end", end));
            }
            let end = end.max(chunk.end());
            chunks.push(chunk);
            Ok(end)
        })
    }

    async fn blob(&self, digest: Digest, offset: u64, _token: &str) -> Result<ByteStream, ApiError> {
        let blob = self.change(|state| state.blobs.get(&digest).cloned());
        let bytes = blob.ok_or_else(|| ApiError::new(ErrorCode::NotFound, format!("no blob {digest}")))?;
        let rest = bytes.slice(usize::try_from(offset).unwrap()..);
        Ok(futures_util::stream::iter([Ok(rest)]).boxed())
    }

    async fn missing_blobs(&self, _: &Fence, _: &str, digests: Vec<Digest>) -> Result<Vec<Digest>, ApiError> {
        self.change(|state| {
            if state.away {
                return Err(away());
            }
            Ok(digests.into_iter().filter(|digest| !state.blobs.contains_key(digest)).collect())
        })
    }

    async fn put_blob(&self, _: &Fence, _: &str, digest: Digest, mut bytes: ByteStream) -> Result<(), ApiError> {
        let mut whole = Vec::new();
        while let Some(piece) = bytes.next().await {
            whole.extend_from_slice(&piece?);
        }
        assert_eq!(Digest::of(&whole), digest);
        self.change(|state| state.blobs.insert(digest, whole.into()));
        Ok(())
    }
}

fn first(records: &Records, positions: u64) -> Records {
    let mut writer = executr_api::output::RecordWriter::default();
    let mut left = positions;
    for record in records.iter() {
        if let Record::Data { stream, bytes } = record {
            let length = left.min(bytes.len() as u64);
            writer.push(stream, &bytes[..length as usize]);
            left -= length;
        }
    }
    writer.take()
}

/// A job with one script.
pub(crate) fn run(script: &str) -> JobSpec {
    JobSpec::new(vec![Step::new(StepCommand::Run(script.to_owned()))])
}

pub(crate) fn argv(words: &[&str]) -> JobSpec {
    JobSpec::new(vec![Step::new(StepCommand::Argv(words.iter().map(|&word| word.to_owned()).collect()))])
}

/// A worker that runs.
pub(crate) struct Rig {
    pub(crate) coordinator: Arc<FakeCoordinator>,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) shutdown: ShutdownHandle,
    running: JoinHandle<Result<WorkerSummary, WorkerError>>,
}

pub(crate) fn options(directory: &std::path::Path) -> WorkerOptions {
    let keeper =
        KeeperOptions { program: executr_tests::program::agent(), args: vec![], cgroups: Cgroups::WhereWritable };
    let mut options = WorkerOptions::new("test", directory, keeper);
    options.kill_grace = Duration::from_secs(1);
    options.heartbeat_interval = Duration::from_millis(500);
    options
}

impl Rig {
    pub(crate) async fn start(adjust: impl FnOnce(&mut WorkerOptions)) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), Arc::default(), adjust).await
    }

    pub(crate) async fn start_in(
        directory: tempfile::TempDir,
        coordinator: Arc<FakeCoordinator>,
        adjust: impl FnOnce(&mut WorkerOptions),
    ) -> Self {
        let mut options = options(directory.path());
        adjust(&mut options);
        let worker = Worker::start(options).await.unwrap();
        let (handle, shutdown): (_, Shutdown) = ShutdownHandle::new();
        let running = tokio::spawn(worker.run(Arc::clone(&coordinator) as Arc<dyn WorkerApi>, shutdown));
        Self { coordinator, directory, shutdown: handle, running }
    }

    /// Waits until the worker ends by itself.
    pub(crate) async fn end(self) -> (Result<WorkerSummary, WorkerError>, Arc<FakeCoordinator>, tempfile::TempDir) {
        let ended = tokio::time::timeout(Duration::from_secs(30), self.running).await;
        (ended.expect("the worker ends").unwrap(), self.coordinator, self.directory)
    }

    /// Tells it to drain and waits until it has.
    pub(crate) async fn drain(self) -> WorkerSummary {
        self.shutdown.drain();
        self.end().await.0.unwrap()
    }
}
