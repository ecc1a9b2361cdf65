//! The routes of the original's own executor: one lease per job, named by the job and the executor's id.
//!
//! Its answers are the original's, but a late answer of an executor that lost its job changes nothing.

use std::collections::BTreeMap;

use std::sync::Arc;

use executr_api::output::{OutputChunk, RecordWriter, Stream};
use executr_api::{ApiError, AttemptResult, ErrorCode, Fence, JobView, Outcome};
use executr_spec::{EnvironmentBase, JobId, QueueName, StepCommand, WorkerId};
use executr_store::{Claim, Claimed, Finish, FinishAnswer, LeaseRecord, RenewAnswer, Renewal, Return};

use crate::coordinator::Coordinator;
use crate::core::Core;
use crate::exchange::{check_id, look_up_queues};
use crate::fleet::original_offers;
use crate::flight::{Reserved, Wishes};
use crate::refusal;

/// Jobs that the original's executor can't run are passed over, up to so many in one claim.
const PASSED_OVER: u32 = 32;

/// How the original's executor says that a job ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OriginalEnd {
    /// `PUT …/complete` rather than `…/fail`.
    pub succeeded: bool,
    /// All of standard output.
    pub stdout: String,
    /// All of standard error.
    pub stderr: String,
    /// The exit code.
    pub exit_code: Option<i32>,
    /// Why it failed.
    pub error_message: Option<String>,
}

impl Coordinator {
    /// Hands one job of the queue `default` with a single binary step to an executor of the original.
    ///
    /// # Errors
    /// `BadRequest` for an impossible executor id.
    pub async fn claim_for_original(
        &self,
        executor: WorkerId,
        ip: Option<String>,
    ) -> Result<Option<JobView>, ApiError> {
        check_id(&executor.0)?;
        let core = self.core();
        core.refuse_when_stopping()?;
        core.fleet.original(&executor, ip.clone());
        core.observer.heartbeat();
        let queues = [QueueName::default()];
        let offers = Arc::new(original_offers());
        look_up_queues(core, &queues).await?;
        let mut limit = 1;
        let mut passed_over = Vec::new();
        let mut found = None;
        let mut failed = None;
        while found.is_none() && limit <= PASSED_OVER && core.ready.fits(&queues, &offers) {
            let claim = Claim {
                worker: executor.clone(),
                ip: ip.clone(),
                limit,
                queues: queues.to_vec(),
                offers: Arc::clone(&offers),
                lease: core.options.lease,
            };
            let reserved = Reserved { claim, slots: None, sent: core.ready.moment() };
            let granted = core.grant(Wishes { claim: Some(reserved), ..Wishes::default() }).await;
            let leases = match granted.and_then(|granted| granted.claim) {
                Ok(leases) => leases,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            };
            let short = leases.len() < limit as usize;
            for lease in leases {
                if found.is_none() && runs_on_original(&lease) {
                    found = Some(lease);
                } else {
                    passed_over.push(Return { fence: lease.fence });
                }
            }
            if short {
                break;
            }
            limit *= PASSED_OVER;
        }
        if !passed_over.is_empty() {
            let granted = core.grant(Wishes { give_back: passed_over, ..Wishes::default() }).await;
            // What was found is told all the same; these run out and come back.
            if let Err(error) = granted.and_then(|granted| granted.give_back) {
                tracing::warn!(%error, "jobs that the original's executor can't run could not be given back");
            }
        }
        match found {
            Some(lease) => self.core().job(lease.fence.job).await.map(Some),
            None => failed.map_or(Ok(None), Err),
        }
    }

    /// Prolongs the lease of an executor of the original.
    ///
    /// # Errors
    /// `NotFound` when there is no such job, this executor doesn't run it, or it was asked to stop.
    pub async fn heartbeat_original(&self, job: JobId, executor: &WorkerId) -> Result<(), ApiError> {
        let core = self.core();
        core.observer.heartbeat();
        let not_running = || {
            let text = format!("job {job} is not found, or not running on {executor}");
            ApiError::new(ErrorCode::NotFound, text).with("job_id", job)
        };
        let lease = held_by(core, job, executor).await?.ok_or_else(not_running)?;
        core.fleet.original(executor, None);
        // It knows no other word for: stop.
        if lease.cancelling {
            return Err(not_running());
        }
        let renewal = Renewal { fence: lease.fence, lease: core.options.lease };
        let granted = core.grant(Wishes { renew: vec![renewal], ..Wishes::default() }).await?;
        match granted.renew?.first() {
            Some(RenewAnswer::Renewed { cancelling: false, .. }) => Ok(()),
            Some(RenewAnswer::Renewed { .. } | RenewAnswer::LeaseLost) | None => Err(not_running()),
        }
    }

    /// Takes the result of an executor of the original.
    ///
    /// # Errors
    /// `NotFound`; `BadRequest` when the job isn't running, or another executor has it.
    pub async fn finish_original(&self, job: JobId, executor: &WorkerId, end: OriginalEnd) -> Result<(), ApiError> {
        let core = self.core();
        let Some(lease) = held_by(core, job, executor).await? else {
            return Err(not_held(core, job, executor).await?);
        };
        core.fleet.original(executor, None);
        let ran = core.clock.now().since(lease.started_at);
        let result = result(lease.fence, end, u64::try_from(ran.as_micros()).unwrap_or(u64::MAX));
        let granted = core.grant(Wishes { finish: vec![Finish { result }], ..Wishes::default() }).await?;
        match granted.finish?.first() {
            Some(FinishAnswer::Taken(_) | FinishAnswer::Before(_)) => Ok(()),
            Some(FinishAnswer::LeaseLost) | None => Err(not_held(core, job, executor).await?),
        }
    }
}

/// The live lease on the job, when this executor holds it.
async fn held_by(core: &Core, job: JobId, executor: &WorkerId) -> Result<Option<LeaseRecord>, ApiError> {
    let lease = core.store.lease_of(job).await.map_err(refusal::store)?;
    Ok(lease.filter(|lease| lease.worker == *executor))
}

/// Why a result is not taken, as the original says it: 404 without the job, 400 for a bad transition.
async fn not_held(core: &Core, job: JobId, executor: &WorkerId) -> Result<ApiError, ApiError> {
    let record = match core.record_of(job).await {
        Ok(record) => record,
        Err(error) if error.code == ErrorCode::NotFound => return Ok(error),
        Err(error) => return Err(error),
    };
    let text = match &record.worker {
        Some(other) if record.state.status() == executr_api::JobStatus::Running => {
            format!("job {job} is held by {other}, not by {executor}; its result is not taken")
        }
        _ => format!("job {job} is {}, not running; its result is not taken", record.state.status()),
    };
    Ok(refusal::bad(text).with("job_id", job).with("status", record.state.status()))
}

fn result(fence: Fence, end: OriginalEnd, duration_us: u64) -> AttemptResult {
    let mut writer = RecordWriter::default();
    writer.push(Stream::Stdout, end.stdout.as_bytes());
    writer.push(Stream::Stderr, end.stderr.as_bytes());
    let output_bytes = writer.span();
    AttemptResult {
        fence,
        outcome: if end.succeeded { Outcome::Succeeded } else { Outcome::Failed },
        exit_code: end.exit_code,
        error_message: end.error_message,
        retryable: true,
        fails_run: false,
        usage: None,
        steps: Vec::new(),
        output: (output_bytes > 0).then(|| OutputChunk { offset: 0, records: writer.take() }),
        output_bytes,
        duration_us,
        outputs: BTreeMap::new(),
        artifacts: Vec::new(),
    }
}

/// The original's executor knows one binary with arguments and variables, and nothing else.
fn runs_on_original(lease: &Claimed) -> bool {
    let Ok(spec) = lease.spec.read() else { return false };
    match &spec.steps[..] {
        [step] => {
            matches!(&step.command, StepCommand::Binary(binary) if !binary.url.starts_with("blob:"))
                && step.env.is_empty()
                && step.timeout.is_none()
                && spec.timeout.is_none()
                && spec.environment == EnvironmentBase::Empty
                && spec.workflow.is_none()
        }
        _ => false,
    }
}
