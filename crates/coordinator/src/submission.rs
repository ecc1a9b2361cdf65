//! Taking jobs in.

use std::collections::BTreeSet;
use std::sync::Arc;

use executr_api::{ApiError, JobView, Submission, SubmittedJob};
use executr_spec::{Digest, JobId, JobSpec, SpecJson, StepCommand, Tenant};
use executr_store::{JobRecord, NewJob, SubmitAnswer, Submitted};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::core::Core;
use crate::refusal;

/// The most jobs that go to the store as one batch, unless one request brings more.
const MOST: usize = 5_000;

/// A request's jobs on their way: all of them are recorded, or none.
#[derive(Debug)]
pub(crate) struct Submitting {
    jobs: Vec<NewJob>,
    answer: oneshot::Sender<Result<Vec<Submitted>, ApiError>>,
}

impl Core {
    pub(crate) async fn submit(self: &Arc<Self>, tenant: &Tenant, job: Submission) -> Result<JobView, ApiError> {
        self.refuse_when_stopping()?;
        let spec = job.into_spec().map_err(refusal::spec)?;
        let job = new_job(tenant, &spec)?;
        self.check_blobs(&job.blobs).await?;
        let fresh = job.clone();
        let submitted = self.record(vec![job]).await?.into_iter().next().ok_or_else(refusal::broken)?;
        if submitted.existing {
            return self.job(submitted.id).await;
        }
        self.view(fresh_record(fresh, &submitted, &spec), spec, None, None)
    }

    pub(crate) async fn submit_bulk(
        self: &Arc<Self>,
        tenant: &Tenant,
        jobs: Vec<Submission>,
    ) -> Result<Vec<SubmittedJob>, ApiError> {
        self.refuse_when_stopping()?;
        self.check_bulk(jobs.len())?;
        let mut new = Vec::with_capacity(jobs.len());
        let mut checked = BTreeSet::new();
        for (index, job) in jobs.into_iter().enumerate() {
            let spec = job.into_spec().map_err(refusal::spec);
            let job = spec.and_then(|spec| new_job(tenant, &spec)).map_err(|error| error.with("index", index))?;
            if job.blobs.iter().any(|blob| checked.insert(*blob)) {
                self.check_blobs(&job.blobs).await.map_err(|error| error.with("index", index))?;
            }
            new.push(job);
        }
        let submitted = self.record(new).await?;
        let shown = |job: Submitted| SubmittedJob { id: job.id, status: job.state.status(), existing: job.existing };
        Ok(submitted.into_iter().map(shown).collect())
    }

    /// Refuses a bulk request over the limit.
    pub(crate) fn check_bulk(&self, count: usize) -> Result<(), ApiError> {
        let most = self.options.max_bulk;
        if count > most {
            let text = format!("{count} jobs at once; at most {most} are allowed, so send them in parts");
            return Err(refusal::bad(text).with("limit", most));
        }
        Ok(())
    }

    /// Checks that blobs exist, and keeps them for another day: until the job names them.
    async fn check_blobs(&self, blobs: &[Digest]) -> Result<(), ApiError> {
        for blob in blobs {
            if self.store.touch_blob(*blob).await.map_err(refusal::store)?.is_none() {
                let text = format!("the server has no blob {blob}; upload it first (PUT /api/v1/blobs/{blob})");
                return Err(refusal::bad(text).with("blob", blob));
            }
        }
        Ok(())
    }

    async fn record(self: &Arc<Self>, jobs: Vec<NewJob>) -> Result<Vec<Submitted>, ApiError> {
        if jobs.is_empty() {
            return Ok(Vec::new());
        }
        let (answer, answered) = oneshot::channel();
        if self.submissions.push(Submitting { jobs, answer }) {
            let core = Arc::clone(self);
            tokio::spawn(async move {
                let mut pilot = core.submissions.board();
                while let Some(batch) = pilot.next(MOST, |submitting| submitting.jobs.len()) {
                    core.record_batch(batch).await;
                }
            });
        }
        answered.await.map_err(|_| refusal::broken())?
    }

    async fn record_batch(&self, batch: Vec<Submitting>) {
        let alone = batch.len() == 1;
        let due = batch.iter().flat_map(|submitting| &submitting.jobs).filter_map(|job| job.run_at).min();
        let (mut jobs, mut shares) = (Vec::new(), Vec::with_capacity(batch.len()));
        for submitting in batch {
            // The jobs are needed once more only when one of several requests is refused.
            shares.push((
                if alone { Vec::new() } else { submitting.jobs.clone() },
                submitting.jobs.len(),
                submitting.answer,
            ));
            jobs.extend(submitting.jobs);
        }
        match self.store.submit(jobs).await {
            Ok(answer) => {
                let mut submitted = self.after_submit(answer).into_iter();
                for (_, count, sender) in shares {
                    let _ = sender.send(Ok(submitted.by_ref().take(count).collect()));
                }
            }
            // One request's job spoils the batch: each request stands for itself.
            Err(error) if !alone && !error.is_transient() => {
                for (jobs, _, sender) in shares {
                    let answer = self.store.submit(jobs).await.map(|answer| self.after_submit(answer));
                    let _ = sender.send(answer.map_err(refusal::store));
                }
            }
            Err(error) => {
                let error = refusal::store(error);
                for (_, _, sender) in shares {
                    let _ = sender.send(Err(error.clone()));
                }
            }
        }
        if let Some(due) = due {
            self.alarm.set(self.clock.instant(due));
        }
    }

    fn after_submit(&self, answer: SubmitAnswer) -> Vec<Submitted> {
        let new = answer.jobs.iter().filter(|job| !job.existing).count();
        self.observer.submitted(new as u64);
        self.readied(&answer.readied);
        answer.jobs
    }
}

/// What the store acts on, and the whole as text.
pub(crate) fn new_job(tenant: &Tenant, spec: &JobSpec) -> Result<NewJob, ApiError> {
    Ok(NewJob {
        id: JobId(Uuid::now_v7()),
        tenant: tenant.clone(),
        job_type: spec.job_type.clone(),
        queue: spec.queue.clone(),
        class: spec.requirements().class(),
        priority: spec.priority,
        run_at: spec.run_at,
        max_retries: spec.max_retries,
        backoff: spec.backoff,
        idempotency_key: spec.idempotency_key.clone(),
        concurrency: spec.concurrency().map(|(key, limit)| (key.to_owned(), limit)),
        blobs: named_blobs(spec)?,
        spec: SpecJson::write(spec).map_err(refusal::spec)?,
    })
}

/// The blobs of the server that a job names as `blob:<digest>`.
fn named_blobs(spec: &JobSpec) -> Result<Vec<Digest>, ApiError> {
    let mut blobs = BTreeSet::new();
    for (index, step) in spec.steps.iter().enumerate() {
        let StepCommand::Binary(binary) = &step.command else { continue };
        let Some(text) = binary.url.strip_prefix("blob:") else { continue };
        let field = format!("steps[{index}].binary.url");
        let digest: Digest =
            text.parse().map_err(|error| refusal::bad(format!("{field}: {error}")).with("field", &field))?;
        if digest != binary.sha256 {
            let text =
                format!("{field}: names another blob than `sha256`, so the check could only fail; make them equal");
            return Err(refusal::bad(text).with("field", field));
        }
        blobs.insert(digest);
    }
    Ok(blobs.into_iter().collect())
}

/// The record that the store has just written.
fn fresh_record(job: NewJob, submitted: &Submitted, spec: &JobSpec) -> JobRecord {
    JobRecord {
        id: submitted.id,
        tenant: job.tenant,
        job_type: job.job_type,
        queue: job.queue,
        class: job.class,
        priority: job.priority,
        state: submitted.state,
        reclaimable: false,
        created_at: submitted.created_at,
        started_at: None,
        completed_at: None,
        due_at: spec.run_at.filter(|_| submitted.state == executr_api::JobState::Scheduled),
        attempt: 0,
        failures: 0,
        lost_leases: 0,
        max_retries: job.max_retries,
        worker: None,
        renewed_at: None,
        exit_code: None,
        error_message: None,
        usage: None,
        output_bytes: 0,
        spec: job.spec,
    }
}
