//! A store in memory, written to be obviously right rather than fast: the oracle of the property test, and a store for
//! the tests of those who use one. Everything is found by looking at everything.
//!
//! What may not live here: cleverness. A rule reads here as `docs/states.md` says it.

mod artifacts;
mod blobs;
mod claim;
mod graph;
mod job;
mod log;
mod queue;
mod run;
mod run_store;
mod workspace;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use executr_api::output::OutputChunk;
use executr_api::{Fence, JobQuery, JobState, JobStatus, StatsView};
use executr_spec::{Digest, JobId, Priority, QueueName, RequirementClass, Timestamp, TokenId, WorkerId};
use tokio::sync::broadcast;
use uuid::Uuid;

use self::blobs::Blobs;
use self::job::Job;
use self::queue::Queue;
use crate::{
    Advanced, AppendAnswer, AttemptRecord, CancelAnswer, Claim, ClaimAnswer, Clock, Finish, FinishAnswer, JobRecord,
    LeaseRecord, NewJob, OutputSlice, RenewAnswer, Renewal, Return, RunStore, Signal, Store, StoreCounters, StoreError,
    SubmitAnswer, TokenRecord, WorkerRecord,
};

/// The store in memory.
#[derive(Debug)]
pub struct ModelStore {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    queries: AtomicU64,
    signals: broadcast::Sender<Signal>,
}

#[derive(Clone, Debug, Default)]
struct State {
    queue: Queue,
    blobs: Blobs,
    workers: BTreeMap<WorkerId, WorkerRecord>,
    tokens: BTreeMap<TokenId, TokenRecord>,
}

impl ModelStore {
    /// An empty store that takes its time from `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::default(), queries: AtomicU64::new(0), signals: broadcast::Sender::new(1) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.queries.fetch_add(1, Ordering::Relaxed);
        // A panic in a test's other thread doesn't make the model wrong.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for ModelStore {
    async fn submit(&self, jobs: Vec<NewJob>) -> Result<SubmitAnswer, StoreError> {
        let mut state = self.state();
        // All or none: on a copy, which is thrown away when one is refused.
        let mut queue = state.queue.clone();
        let answer = queue.submit(jobs, self.clock.now())?;
        state.queue = queue;
        Ok(answer)
    }

    async fn claim(&self, claims: Vec<Claim>) -> Result<Vec<ClaimAnswer>, StoreError> {
        let (mut state, now) = (self.state(), self.clock.now());
        Ok(claims.iter().map(|claim| state.queue.claim(claim, now)).collect())
    }

    async fn finish(&self, results: Vec<Finish>) -> Result<Vec<FinishAnswer>, StoreError> {
        let (mut state, now) = (self.state(), self.clock.now());
        Ok(results.into_iter().map(|finish| state.queue.finish(finish.result, now)).collect())
    }

    async fn renew(&self, renewals: Vec<Renewal>) -> Result<Vec<RenewAnswer>, StoreError> {
        let (mut state, now) = (self.state(), self.clock.now());
        Ok(renewals.into_iter().map(|renewal| state.queue.renew(renewal, now)).collect())
    }

    async fn give_back(&self, returns: Vec<Return>) -> Result<Vec<FinishAnswer>, StoreError> {
        let (mut state, now) = (self.state(), self.clock.now());
        Ok(returns.into_iter().map(|back| state.queue.give_back(back.fence, now)).collect())
    }

    async fn cancel(
        &self,
        jobs: Vec<JobId>,
        pending_only: bool,
        reason: &str,
    ) -> Result<Vec<CancelAnswer>, StoreError> {
        let (mut state, now) = (self.state(), self.clock.now());
        Ok(jobs.into_iter().map(|job| state.queue.cancel(job, pending_only, reason, now)).collect())
    }

    async fn advance(&self, may_reclaim: bool, limit: u32) -> Result<Advanced, StoreError> {
        Ok(self.state().queue.advance(may_reclaim, limit as usize, self.clock.now()))
    }

    async fn delete_final(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let mut state = self.state();
        state.workers.retain(|_, worker| worker.last_seen >= before);
        Ok(state.queue.delete_final(before, limit as usize))
    }

    async fn job(&self, id: JobId) -> Result<Option<JobRecord>, StoreError> {
        Ok(self.state().queue.job(id).map(|job| job.record.clone()))
    }

    async fn attempts(&self, id: JobId) -> Result<Vec<AttemptRecord>, StoreError> {
        let state = self.state();
        let attempts = state.queue.job(id).map_or(&[][..], |job| &job.attempts);
        Ok(attempts.iter().map(|attempt| attempt.record.clone()).collect())
    }

    async fn jobs(&self, query: &JobQuery) -> Result<Vec<JobRecord>, StoreError> {
        let state = self.state();
        let before = match query.before {
            Some(id) => state.queue.numbers.get(&id).copied().unwrap_or(0),
            None => u64::MAX,
        };
        let wanted = |record: &&JobRecord| {
            query.status.is_none_or(|status| record.state.status() == status)
                && query.job_type.as_ref().is_none_or(|job_type| record.job_type == *job_type)
                && query.priority.is_none_or(|priority| record.priority == priority)
                && query.queue.as_ref().is_none_or(|queue| record.queue == *queue)
        };
        Ok(state
            .queue
            .jobs
            .range(..before)
            .rev()
            .map(|(_, job)| &job.record)
            .filter(wanted)
            .skip(usize::try_from(query.offset).unwrap_or(usize::MAX))
            .take(query.limit.map_or(usize::MAX, |limit| limit as usize))
            .cloned()
            .collect())
    }

    async fn stats(&self) -> Result<StatsView, StoreError> {
        let mut stats = StatsView::default();
        for status in JobStatus::ALL {
            stats.jobs_by_status.insert(status.to_string(), 0);
        }
        for priority in Priority::ALL {
            stats.pending_by_priority.insert(priority.to_string(), 0);
        }
        for state in JobState::ALL.into_iter().filter(|state| !state.is_final()) {
            stats.jobs_by_state.insert(state.to_string(), 0);
        }
        for Job { record, .. } in self.state().queue.jobs.values() {
            let status = record.state.status();
            *stats.jobs_by_status.entry(status.to_string()).or_default() += 1;
            if !record.state.is_final() {
                *stats.jobs_by_state.entry(record.state.to_string()).or_default() += 1;
            }
            if status == JobStatus::Pending {
                *stats.pending_by_priority.entry(record.priority.to_string()).or_default() += 1;
                *stats.pending_by_queue.entry(record.queue.to_string()).or_default() += 1;
            }
        }
        Ok(stats)
    }

    async fn classes(&self, queue: &QueueName) -> Result<Vec<(RequirementClass, bool)>, StoreError> {
        Ok(self.state().queue.live_classes(queue).into_iter().collect())
    }

    async fn leases_of(&self, worker: &WorkerId) -> Result<Vec<LeaseRecord>, StoreError> {
        let state = self.state();
        Ok(state.queue.jobs.values().filter_map(lease).filter(|lease| lease.worker == *worker).collect())
    }

    async fn lease_of(&self, job: JobId) -> Result<Option<LeaseRecord>, StoreError> {
        Ok(self.state().queue.job(job).and_then(lease))
    }

    async fn put_workers(&self, workers: Vec<WorkerRecord>) -> Result<(), StoreError> {
        let (mut state, now) = (self.state(), self.clock.now());
        for mut worker in workers {
            worker.last_seen = now;
            worker.jobs_completed += state.workers.get(&worker.id).map_or(0, |earlier| earlier.jobs_completed);
            state.workers.insert(worker.id.clone(), worker);
        }
        Ok(())
    }

    async fn workers(&self, since: Timestamp) -> Result<Vec<WorkerRecord>, StoreError> {
        Ok(self.state().workers.values().filter(|worker| worker.last_seen >= since).cloned().collect())
    }

    async fn append_output(&self, fence: &Fence, chunk: OutputChunk) -> Result<AppendAnswer, StoreError> {
        let mut state = self.state();
        let attempt = state.queue.job_mut(fence.job).and_then(|job| job.held(fence));
        Ok(attempt.map_or(AppendAnswer::LeaseLost, |(attempt, _)| attempt.log.append(&chunk)))
    }

    async fn output(
        &self,
        job: JobId,
        attempt: u32,
        offset: u64,
        max_bytes: usize,
    ) -> Result<Option<OutputSlice>, StoreError> {
        let state = self.state();
        let attempts = state.queue.job(job).map_or(&[][..], |job| &job.attempts);
        let found = attempts.iter().find(|found| found.record.fence.attempt == attempt);
        Ok(found.map(|found| found.log.read(offset, max_bytes, found.record.ended_at.is_some())))
    }

    async fn append_blob(&self, upload: Uuid, offset: u64, bytes: Bytes) -> Result<(), StoreError> {
        self.state().blobs.append(upload, offset, &bytes, self.clock.now())
    }

    async fn finish_blob(&self, upload: Uuid, digest: Digest, size: u64) -> Result<(), StoreError> {
        self.state().blobs.finish(upload, digest, size, self.clock.now())
    }

    async fn drop_blob_upload(&self, upload: Uuid) -> Result<(), StoreError> {
        self.state().blobs.drop_upload(upload);
        Ok(())
    }

    async fn touch_blob(&self, digest: Digest) -> Result<Option<u64>, StoreError> {
        Ok(self.state().blobs.touch(digest, self.clock.now()))
    }

    async fn read_blob(&self, digest: Digest, offset: u64) -> Result<Option<Bytes>, StoreError> {
        Ok(self.state().blobs.read(digest, offset))
    }

    async fn delete_blobs(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut state = self.state();
        let named = state.queue.named_blobs();
        Ok(state.blobs.delete(before, &named))
    }

    async fn put_token(&self, mut token: TokenRecord) -> Result<(), StoreError> {
        token.created_at = self.clock.now();
        self.state().tokens.insert(token.id, token);
        Ok(())
    }

    async fn token_by_hash(&self, hash: Digest) -> Result<Option<TokenRecord>, StoreError> {
        let now = self.clock.now();
        let valid = |token: &&TokenRecord| token.hash == hash && token.expires_at.is_none_or(|at| at > now);
        Ok(self.state().tokens.values().find(valid).cloned())
    }

    async fn tokens(&self) -> Result<Vec<TokenRecord>, StoreError> {
        let mut tokens: Vec<_> = self.state().tokens.values().cloned().collect();
        tokens.sort_by_key(|token| (token.created_at, token.id));
        Ok(tokens)
    }

    async fn revoke_token(&self, id: TokenId) -> Result<bool, StoreError> {
        Ok(self.state().tokens.remove(&id).is_some())
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(self.clock.now())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn subscribe(&self) -> broadcast::Receiver<Signal> {
        self.signals.subscribe()
    }

    fn publish(&self, _signal: Signal) {}

    fn runs(&self) -> Option<&dyn RunStore> {
        Some(self)
    }

    fn counters(&self) -> StoreCounters {
        StoreCounters { queries: self.queries.load(Ordering::Relaxed), errors: 0, query_micros: 0, connections: 1 }
    }
}

/// The job's live lease, as it is shown.
fn lease(job: &Job) -> Option<LeaseRecord> {
    let (live, attempt) = (job.lease?, job.attempts.last()?);
    Some(LeaseRecord {
        fence: attempt.record.fence,
        worker: attempt.record.worker.clone(),
        started_at: attempt.record.started_at,
        expires_at: live.expires_at,
        cancelling: job.record.state == JobState::Cancelling,
        tenant: job.new.tenant.clone(),
        spec: job.new.spec.clone(),
    })
}
