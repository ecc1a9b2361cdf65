//! A store that counts what is asked of it, and fails or stalls when a test wants it to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use executr_api::output::OutputChunk;
use executr_api::{Fence, JobQuery, StatsView};
use executr_spec::{Digest, JobId, QueueName, RequirementClass, Timestamp, TokenId, WorkerId};
use executr_store::{
    Advanced, AppendAnswer, AttemptRecord, CancelAnswer, Claim, ClaimAnswer, Finish, FinishAnswer, JobRecord,
    LeaseRecord, NewJob, OutputSlice, RenewAnswer, Renewal, Return, RunStore, Signal, Store, StoreCounters, StoreError,
    SubmitAnswer, TokenRecord, WorkerRecord,
};
use tokio::sync::{broadcast, watch};
use uuid::Uuid;

/// A store behind a watchman.
pub(crate) struct Probe {
    inner: Arc<dyn Store>,
    calls: Mutex<BTreeMap<&'static str, u64>>,
    failing: Mutex<BTreeSet<&'static str>>,
    /// Whether claims are carried out and then fail.
    losing_claims: Mutex<bool>,
    poisonous: Mutex<Option<JobId>>,
    stalled: watch::Sender<BTreeSet<&'static str>>,
    signals: broadcast::Sender<Signal>,
    published: Mutex<Vec<Signal>>,
}

impl Probe {
    pub(crate) fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            calls: Mutex::default(),
            failing: Mutex::default(),
            losing_claims: Mutex::default(),
            poisonous: Mutex::default(),
            stalled: watch::Sender::default(),
            signals: broadcast::Sender::new(100),
            published: Mutex::default(),
        }
    }

    /// The calls since the last time, without those of the background.
    pub(crate) fn take_calls(&self) -> BTreeMap<&'static str, u64> {
        let mut calls = std::mem::take(&mut *self.calls.lock().unwrap());
        for background in ["advance", "now", "put_workers", "workers"] {
            calls.remove(background);
        }
        calls
    }

    /// From now on `command` fails, or doesn't any more.
    pub(crate) fn fail(&self, command: &'static str, fails: bool) {
        let mut failing = self.failing.lock().unwrap();
        if fails {
            failing.insert(command)
        } else {
            failing.remove(command)
        };
    }

    /// From now on claims are carried out but their answers are lost, or aren't any more.
    pub(crate) fn lose_claims(&self, loses: bool) {
        *self.losing_claims.lock().unwrap() = loses;
    }

    /// From now on a batch with a result of this job is refused, as by a database that can't hold what is in it.
    pub(crate) fn poison(&self, job: JobId) {
        *self.poisonous.lock().unwrap() = Some(job);
    }

    /// From now on `command` is carried out but doesn't return, or does.
    pub(crate) fn stall(&self, command: &'static str, stalls: bool) {
        self.stalled.send_modify(|stalled| {
            if stalls {
                stalled.insert(command)
            } else {
                stalled.remove(command)
            };
        });
    }

    /// What another coordinator on the same database lets know.
    pub(crate) fn signal(&self, signal: Signal) {
        self.signals.send(signal).unwrap();
    }

    /// What others were let know since the last time.
    pub(crate) fn take_published(&self) -> Vec<Signal> {
        std::mem::take(&mut *self.published.lock().unwrap())
    }

    fn before(&self, command: &'static str) -> Result<(), StoreError> {
        *self.calls.lock().unwrap().entry(command).or_default() += 1;
        if self.failing.lock().unwrap().contains(command) {
            return Err(StoreError::Unavailable(format!("{command} fails on purpose")));
        }
        Ok(())
    }

    async fn after(&self, command: &'static str) {
        // The sender lives as long as the store.
        let _ = self.stalled.subscribe().wait_for(|stalled| !stalled.contains(command)).await;
    }
}

#[async_trait]
impl Store for Probe {
    async fn submit(&self, jobs: Vec<NewJob>) -> Result<SubmitAnswer, StoreError> {
        self.before("submit")?;
        let answer = self.inner.submit(jobs).await;
        self.after("submit").await;
        answer
    }

    async fn claim(&self, claims: Vec<Claim>) -> Result<Vec<ClaimAnswer>, StoreError> {
        self.before("claim")?;
        let answer = self.inner.claim(claims).await;
        self.after("claim").await;
        if *self.losing_claims.lock().unwrap() {
            return Err(StoreError::Unavailable("the answer is lost on purpose".to_owned()));
        }
        answer
    }

    async fn finish(&self, results: Vec<Finish>) -> Result<Vec<FinishAnswer>, StoreError> {
        self.before("finish")?;
        let poisonous = *self.poisonous.lock().unwrap();
        if results.iter().any(|finish| Some(finish.result.fence.job) == poisonous) {
            return Err(StoreError::Database("it can't hold this".to_owned()));
        }
        let answer = self.inner.finish(results).await;
        self.after("finish").await;
        answer
    }

    async fn renew(&self, renewals: Vec<Renewal>) -> Result<Vec<RenewAnswer>, StoreError> {
        self.before("renew")?;
        let answer = self.inner.renew(renewals).await;
        self.after("renew").await;
        answer
    }

    async fn give_back(&self, returns: Vec<Return>) -> Result<Vec<FinishAnswer>, StoreError> {
        self.before("give_back")?;
        let answer = self.inner.give_back(returns).await;
        self.after("give_back").await;
        answer
    }

    async fn cancel(
        &self,
        jobs: Vec<JobId>,
        pending_only: bool,
        reason: &str,
    ) -> Result<Vec<CancelAnswer>, StoreError> {
        self.before("cancel")?;
        let answer = self.inner.cancel(jobs, pending_only, reason).await;
        self.after("cancel").await;
        answer
    }

    async fn advance(&self, may_reclaim: bool, limit: u32) -> Result<Advanced, StoreError> {
        self.before("advance")?;
        let answer = self.inner.advance(may_reclaim, limit).await;
        self.after("advance").await;
        answer
    }

    async fn delete_final(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        self.before("delete_final")?;
        let answer = self.inner.delete_final(before, limit).await;
        self.after("delete_final").await;
        answer
    }

    async fn job(&self, id: JobId) -> Result<Option<JobRecord>, StoreError> {
        self.before("job")?;
        let answer = self.inner.job(id).await;
        self.after("job").await;
        answer
    }

    async fn attempts(&self, id: JobId) -> Result<Vec<AttemptRecord>, StoreError> {
        self.before("attempts")?;
        let answer = self.inner.attempts(id).await;
        self.after("attempts").await;
        answer
    }

    async fn jobs(&self, query: &JobQuery) -> Result<Vec<JobRecord>, StoreError> {
        self.before("jobs")?;
        let answer = self.inner.jobs(query).await;
        self.after("jobs").await;
        answer
    }

    async fn stats(&self) -> Result<StatsView, StoreError> {
        self.before("stats")?;
        let answer = self.inner.stats().await;
        self.after("stats").await;
        answer
    }

    async fn classes(&self, queue: &QueueName) -> Result<Vec<(RequirementClass, bool)>, StoreError> {
        self.before("classes")?;
        let answer = self.inner.classes(queue).await;
        self.after("classes").await;
        answer
    }

    async fn leases_of(&self, worker: &WorkerId) -> Result<Vec<LeaseRecord>, StoreError> {
        self.before("leases_of")?;
        let answer = self.inner.leases_of(worker).await;
        self.after("leases_of").await;
        answer
    }

    async fn lease_of(&self, job: JobId) -> Result<Option<LeaseRecord>, StoreError> {
        self.before("lease_of")?;
        let answer = self.inner.lease_of(job).await;
        self.after("lease_of").await;
        answer
    }

    async fn put_workers(&self, workers: Vec<WorkerRecord>) -> Result<(), StoreError> {
        self.before("put_workers")?;
        let answer = self.inner.put_workers(workers).await;
        self.after("put_workers").await;
        answer
    }

    async fn workers(&self, since: Timestamp) -> Result<Vec<WorkerRecord>, StoreError> {
        self.before("workers")?;
        let answer = self.inner.workers(since).await;
        self.after("workers").await;
        answer
    }

    async fn append_output(&self, fence: &Fence, chunk: OutputChunk) -> Result<AppendAnswer, StoreError> {
        self.before("append_output")?;
        let answer = self.inner.append_output(fence, chunk).await;
        self.after("append_output").await;
        answer
    }

    async fn output(
        &self,
        job: JobId,
        attempt: u32,
        offset: u64,
        max_bytes: usize,
    ) -> Result<Option<OutputSlice>, StoreError> {
        self.before("output")?;
        let answer = self.inner.output(job, attempt, offset, max_bytes).await;
        self.after("output").await;
        answer
    }

    async fn append_blob(&self, upload: Uuid, offset: u64, bytes: Bytes) -> Result<(), StoreError> {
        self.before("append_blob")?;
        let answer = self.inner.append_blob(upload, offset, bytes).await;
        self.after("append_blob").await;
        answer
    }

    async fn finish_blob(&self, upload: Uuid, digest: Digest, size: u64) -> Result<(), StoreError> {
        self.before("finish_blob")?;
        let answer = self.inner.finish_blob(upload, digest, size).await;
        self.after("finish_blob").await;
        answer
    }

    async fn drop_blob_upload(&self, upload: Uuid) -> Result<(), StoreError> {
        self.before("drop_blob_upload")?;
        let answer = self.inner.drop_blob_upload(upload).await;
        self.after("drop_blob_upload").await;
        answer
    }

    async fn touch_blob(&self, digest: Digest) -> Result<Option<u64>, StoreError> {
        self.before("touch_blob")?;
        let answer = self.inner.touch_blob(digest).await;
        self.after("touch_blob").await;
        answer
    }

    async fn read_blob(&self, digest: Digest, offset: u64) -> Result<Option<Bytes>, StoreError> {
        self.before("read_blob")?;
        let answer = self.inner.read_blob(digest, offset).await;
        self.after("read_blob").await;
        answer
    }

    async fn delete_blobs(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.before("delete_blobs")?;
        let answer = self.inner.delete_blobs(before).await;
        self.after("delete_blobs").await;
        answer
    }

    async fn put_token(&self, token: TokenRecord) -> Result<(), StoreError> {
        self.before("put_token")?;
        let answer = self.inner.put_token(token).await;
        self.after("put_token").await;
        answer
    }

    async fn token_by_hash(&self, hash: Digest) -> Result<Option<TokenRecord>, StoreError> {
        self.before("token_by_hash")?;
        let answer = self.inner.token_by_hash(hash).await;
        self.after("token_by_hash").await;
        answer
    }

    async fn tokens(&self) -> Result<Vec<TokenRecord>, StoreError> {
        self.before("tokens")?;
        let answer = self.inner.tokens().await;
        self.after("tokens").await;
        answer
    }

    async fn revoke_token(&self, id: TokenId) -> Result<bool, StoreError> {
        self.before("revoke_token")?;
        let answer = self.inner.revoke_token(id).await;
        self.after("revoke_token").await;
        answer
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.before("now")?;
        let answer = self.inner.now().await;
        self.after("now").await;
        answer
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.before("ping")?;
        let answer = self.inner.ping().await;
        self.after("ping").await;
        answer
    }

    fn subscribe(&self) -> broadcast::Receiver<Signal> {
        self.signals.subscribe()
    }

    fn publish(&self, signal: Signal) {
        self.published.lock().unwrap().push(signal);
    }

    fn runs(&self) -> Option<&dyn RunStore> {
        self.inner.runs()
    }

    fn counters(&self) -> StoreCounters {
        self.inner.counters()
    }
}
