//! What the cases act on: short words for the commands they use most.

use std::collections::BTreeMap;

use std::sync::Arc;
use std::time::Duration;

use executr_api::output::{OutputChunk, RecordWriter, Stream};
use executr_api::{AttemptResult, Fence, JobState, Outcome};
use executr_spec::{
    Backoff, BackoffKind, Capability, ExecutorKind, JobId, JobSpec, Offers, Requirements, Span, SpecJson, Step,
    StepCommand, Timestamp, WorkerId,
};
use executr_store::{
    Advanced, AttemptRecord, CancelAnswer, Cancelled, Claim, Claimed, Finish, FinishAnswer, Finished, JobRecord,
    NewJob, RenewAnswer, Renewal, Return, Store,
};
use uuid::Uuid;

use super::Harness;

/// How long leases last on stage.
pub(crate) const LEASE: Duration = Duration::from_secs(30);

/// A store with nothing in it, and its clock.
pub(crate) struct Stage<H> {
    pub(crate) harness: H,
    pub(crate) store: Arc<dyn Store>,
}

/// A plain job.
pub(crate) fn job() -> NewJob {
    let spec = JobSpec::new(vec![Step::new(StepCommand::Argv(vec!["true".to_owned()]))]);
    NewJob {
        id: JobId(Uuid::now_v7()),
        tenant: "default".parse().expect("a tenant"),
        job_type: "command".parse().expect("a type"),
        queue: "default".parse().expect("a queue"),
        class: spec.requirements().class(),
        priority: spec.priority,
        run_at: None,
        max_retries: 0,
        backoff: Backoff::default(),
        idempotency_key: None,
        concurrency: None,
        blobs: vec![],
        spec: SpecJson::write(&spec).expect("a small job"),
    }
}

/// A plain job of another tenant.
pub(crate) fn of(tenant: &str) -> NewJob {
    NewJob { tenant: tenant.parse().expect("a tenant"), ..job() }
}

/// A plain job with a concurrency key.
pub(crate) fn keyed(key: &str, limit: u32) -> NewJob {
    NewJob { concurrency: Some((key.to_owned(), limit)), ..job() }
}

/// A job that asks for a label.
pub(crate) fn labelled(value: &str) -> NewJob {
    let labels = [("gpu".to_owned(), value.to_owned())].into();
    NewJob { class: Requirements { labels, ..Requirements::default() }.class(), ..job() }
}

/// What a worker offers without labels.
pub(crate) fn offers() -> Offers {
    Offers {
        executors: [ExecutorKind::Local].into(),
        labels: Default::default(),
        capabilities: [Capability::LimitMemory].into(),
        worker: None,
    }
}

/// What a worker with a label offers.
pub(crate) fn offering(value: &str) -> Offers {
    Offers { labels: [("gpu".to_owned(), value.to_owned())].into(), ..offers() }
}

pub(crate) fn worker(name: &str) -> WorkerId {
    WorkerId(name.to_owned())
}

/// A wish for `limit` jobs of the default queue.
pub(crate) fn wish(name: &str, limit: u32) -> Claim {
    Claim {
        worker: worker(name),
        ip: Some("192.0.2.1".to_owned()),
        limit,
        queues: vec!["default".parse().expect("a queue")],
        offers: Arc::new(offers()),
        lease: LEASE,
    }
}

pub(crate) fn result(fence: Fence, outcome: Outcome) -> AttemptResult {
    AttemptResult {
        fence,
        outcome,
        exit_code: Some(i32::from(outcome != Outcome::Succeeded)),
        error_message: (outcome != Outcome::Succeeded).then(|| "exit code 1".to_owned()),
        retryable: true,
        fails_run: false,
        usage: None,
        steps: vec![],
        output: None,
        output_bytes: 0,
        duration_us: 1,
        outputs: BTreeMap::new(),
        artifacts: Vec::new(),
    }
}

/// Waits `seconds` between attempts.
pub(crate) fn constant(seconds: u64) -> Backoff {
    let wait = Span(Duration::from_secs(seconds));
    Backoff { kind: BackoffKind::Constant, min_time: wait, max_time: wait }
}

/// Some bytes of stdout at a position.
pub(crate) fn chunk(offset: u64, bytes: &[u8]) -> OutputChunk {
    let mut writer = RecordWriter::default();
    writer.push(Stream::Stdout, bytes);
    OutputChunk { offset, records: writer.take() }
}

impl<H: Harness> Stage<H> {
    pub(crate) fn new(harness: H) -> Self {
        let store = harness.store();
        Self { harness, store }
    }

    pub(crate) async fn pass(&self, span: Duration) {
        self.harness.advance(span).await;
    }

    pub(crate) async fn now(&self) -> Timestamp {
        self.store.now().await.expect("the time")
    }

    /// Submits and returns the ids in order.
    pub(crate) async fn submit(&self, jobs: impl IntoIterator<Item = NewJob>) -> Vec<JobId> {
        let answer = self.store.submit(jobs.into_iter().collect()).await.expect("submitted");
        answer.jobs.into_iter().map(|job| job.id).collect()
    }

    pub(crate) async fn submit_one(&self, job: NewJob) -> JobId {
        self.submit([job]).await[0]
    }

    pub(crate) async fn claim_as(&self, claim: Claim) -> Vec<Claimed> {
        self.store.claim(vec![claim]).await.expect("claimed").remove(0).leases
    }

    pub(crate) async fn claim(&self, limit: u32) -> Vec<Claimed> {
        self.claim_as(wish("w", limit)).await
    }

    /// The ids of the jobs that a plain worker gets.
    pub(crate) async fn take(&self, limit: u32) -> Vec<JobId> {
        self.claim(limit).await.into_iter().map(|claimed| claimed.fence.job).collect()
    }

    pub(crate) async fn claim_one(&self) -> Fence {
        self.claim(1).await.first().expect("a ready job").fence
    }

    /// A job that a worker has.
    pub(crate) async fn running(&self, job: NewJob) -> Fence {
        let id = self.submit_one(job).await;
        let fence = self.claim_one().await;
        assert_eq!(fence.job, id);
        fence
    }

    pub(crate) async fn end(&self, result: AttemptResult) -> FinishAnswer {
        self.store.finish(vec![Finish { result }]).await.expect("finished").remove(0)
    }

    /// Finishes and expects it to be taken.
    pub(crate) async fn finish(&self, fence: Fence, outcome: Outcome) -> Finished {
        match self.end(result(fence, outcome)).await {
            FinishAnswer::Taken(finished) => finished,
            other => panic!("the result of {fence} was not taken: {other:?}"),
        }
    }

    pub(crate) async fn succeed(&self, fence: Fence) {
        assert_eq!(self.finish(fence, Outcome::Succeeded).await.state, JobState::Completed);
    }

    pub(crate) async fn renew(&self, fence: Fence) -> RenewAnswer {
        self.store.renew(vec![Renewal { fence, lease: LEASE }]).await.expect("renewed").remove(0)
    }

    pub(crate) async fn give_back(&self, fence: Fence) -> FinishAnswer {
        self.store.give_back(vec![Return { fence }]).await.expect("given back").remove(0)
    }

    pub(crate) async fn cancel(&self, id: JobId) -> CancelAnswer {
        self.store.cancel(vec![id], false, "not wanted").await.expect("cancelled").remove(0)
    }

    pub(crate) async fn cancel_waiting(&self, id: JobId) -> Cancelled {
        match self.cancel(id).await {
            CancelAnswer::Cancelled(cancelled) => cancelled,
            other => panic!("{id} was not waiting: {other:?}"),
        }
    }

    pub(crate) async fn advance(&self) -> Advanced {
        self.store.advance(true, 100).await.expect("advanced")
    }

    /// Lets all leases run out and be noticed.
    pub(crate) async fn lose_leases(&self) -> Advanced {
        self.pass(LEASE).await;
        self.advance().await
    }

    pub(crate) async fn job(&self, id: JobId) -> JobRecord {
        self.store.job(id).await.expect("read").expect("there")
    }

    pub(crate) async fn state(&self, id: JobId) -> JobState {
        self.job(id).await.state
    }

    pub(crate) async fn attempts(&self, id: JobId) -> Vec<AttemptRecord> {
        self.store.attempts(id).await.expect("read")
    }
}
