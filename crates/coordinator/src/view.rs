//! Jobs as the API shows them.

use executr_api::{ApiError, AttemptView, JobQuery, JobRun, JobState, JobView};
use executr_spec::{Digest, JobId, JobSpec, StepCommand};
use executr_store::{AttemptRecord, JobRecord};
use uuid::Uuid;

use crate::core::Core;
use crate::output::Fields;
use crate::refusal;
use crate::waiting_for::WaitingFor;

/// So many jobs are listed when nothing is said.
const LISTED: u32 = 100;
/// At most so many are.
const MOST_LISTED: u32 = 1_000;
/// A list ends when the specs in it have so many bytes.
const LISTED_BYTES: usize = 8 << 20;
/// So many are read from the store at a time.
const AT_A_TIME: usize = 100;

impl Core {
    /// One job with its attempts and its shortened output.
    pub(crate) async fn job(&self, id: JobId) -> Result<JobView, ApiError> {
        let record = self.record_of(id).await?;
        self.full_view(record).await
    }

    pub(crate) async fn record_of(&self, id: JobId) -> Result<JobRecord, ApiError> {
        self.store.job(id).await.map_err(refusal::store)?.ok_or_else(|| refusal::no_job(id))
    }

    pub(crate) async fn full_view(&self, record: JobRecord) -> Result<JobView, ApiError> {
        let spec = record.spec.read().map_err(|error| refusal::unreadable(record.id, &error))?;
        let attempts = self.store.attempts(record.id).await.map_err(refusal::store)?;
        let fields = match attempts.last() {
            Some(last) => Some(self.output_fields(last).await?),
            None => None,
        };
        let run = match self.store.runs().filter(|_| spec.workflow.is_some()) {
            Some(runs) => runs.run_of(record.id).await.map_err(refusal::store)?,
            None => None,
        };
        let view = self.view(record, spec, Some(attempts), fields)?;
        Ok(JobView { run: run.map(|(id, name)| JobRun { id, name }), ..view })
    }

    pub(crate) async fn jobs(&self, query: JobQuery) -> Result<Vec<JobView>, ApiError> {
        let limit = query.limit.unwrap_or(LISTED);
        if limit > MOST_LISTED {
            let text = format!("`limit` is {limit}; at most {MOST_LISTED} are allowed, so page with `before`");
            return Err(refusal::bad(text).with("field", "limit"));
        }
        let records = self.records(query, limit).await?;
        let waiting_for = self.waiting_for();
        let view = |record: JobRecord| {
            let spec = record.spec.read().map_err(|error| refusal::unreadable(record.id, &error))?;
            Ok(job_view(record, spec, None, None, &waiting_for))
        };
        records.into_iter().map(view).collect()
    }

    /// Up to `limit` jobs, fewer when they are large: it ends with the one that makes [`LISTED_BYTES`] full.
    async fn records(&self, mut query: JobQuery, limit: u32) -> Result<Vec<JobRecord>, ApiError> {
        let mut records: Vec<JobRecord> = Vec::new();
        let mut bytes = 0;
        loop {
            let wanted = (limit as usize).saturating_sub(records.len()).min(AT_A_TIME);
            query.limit = Some(u32::try_from(wanted).unwrap_or(u32::MAX));
            let page = self.store.jobs(&query).await.map_err(refusal::store)?;
            let short = page.len() < wanted;
            for record in page {
                bytes += record.spec.as_str().len();
                records.push(record);
                if bytes >= LISTED_BYTES {
                    return Ok(records);
                }
            }
            if short || records.len() >= limit as usize {
                return Ok(records);
            }
            query.before = records.last().map(|record| record.id);
            query.offset = 0;
        }
    }

    /// A job without a further look at the store.
    pub(crate) fn view(
        &self,
        record: JobRecord,
        spec: JobSpec,
        attempts: Option<Vec<AttemptRecord>>,
        fields: Option<Fields>,
    ) -> Result<JobView, ApiError> {
        Ok(job_view(record, spec, attempts, fields, &self.waiting_for()))
    }
}

fn job_view(
    record: JobRecord,
    spec: JobSpec,
    attempts: Option<Vec<AttemptRecord>>,
    fields: Option<Fields>,
    waiting_for: &WaitingFor,
) -> JobView {
    let (binary_url, binary_sha256, arguments) = match &spec.steps[..] {
        [step] => match &step.command {
            StepCommand::Binary(binary) => (Some(binary.url.clone()), Some(binary.sha256), binary.args.clone()),
            StepCommand::Argv(_) | StepCommand::Run(_) => (None, None, Vec::new()),
        },
        _ => (None, None, Vec::new()),
    };
    let (stdout, stderr) = fields.map(|fields| (fields.stdout, fields.stderr)).unzip();
    JobView {
        id: record.id,
        binary_url,
        binary_sha256,
        arguments,
        env_variables: spec.env.clone(),
        priority: record.priority,
        status: record.state.status(),
        stdout,
        stderr,
        exit_code: record.exit_code,
        created_at: record.created_at,
        started_at: record.started_at,
        completed_at: record.completed_at,
        last_heartbeat: record.renewed_at,
        max_retries: record.max_retries,
        retry_count: retries(&record),
        retry_after: record.due_at.filter(|_| record.state == JobState::Scheduled),
        state: record.state,
        run: None,
        waiting_for: waiting_for.words(&record, &spec),
        attempt: record.attempt,
        lost_leases: record.lost_leases,
        usage: record.usage,
        output_bytes: record.output_bytes,
        attempts: attempts.map(|attempts| attempts.into_iter().map(attempt_view).collect()),
        executor_id: record.worker,
        error_message: record.error_message,
        job_type: record.job_type,
        spec,
    }
}

/// How many of the attempts were repetitions after a failure. (Those after a lost lease are counted apart.)
fn retries(record: &JobRecord) -> u32 {
    record.failures.min(record.attempt.saturating_sub(1 + record.lost_leases))
}

fn attempt_view(record: AttemptRecord) -> AttemptView {
    AttemptView {
        id: public_id(&record),
        job_id: record.fence.job,
        attempt: record.fence.attempt,
        executor_id: record.worker,
        executor_ip: record.ip,
        started_at: record.started_at,
        ended_at: record.ended_at,
        status: record.status,
        exit_code: record.exit_code,
        error_message: record.error_message,
        usage: record.usage,
        steps: record.steps,
        output_bytes: record.output_bytes,
    }
}

/// An attempt's id as everybody may see it. The lease's own id is a secret, and can't be found from this.
fn public_id(record: &AttemptRecord) -> Uuid {
    let [id @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = Digest::of(record.fence.lease.0.as_bytes()).0;
    uuid::Builder::from_custom_bytes(id).into_uuid()
}
