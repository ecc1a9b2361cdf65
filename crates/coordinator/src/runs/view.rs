//! Runs as the API shows them.

use std::time::Duration;

use executr_api::{ApiError, ArtifactQuery, ArtifactView, RunJobView, RunQuery, RunView};
use executr_spec::RunId;
use executr_spec::workflow::RunPlan;
use executr_store::{ArtifactRecord, RunJobRecord, RunRecord};
use tokio::time::{Instant, sleep, timeout_at};

use super::{no_run, outline};
use crate::core::Core;
use crate::refusal;

/// So many runs are listed when nothing is said.
const LISTED: u32 = 100;
/// At most so many runs, or jobs of a run, are listed.
const MOST_LISTED: u32 = 1_000;
/// At most so many artifacts are; a tenth when nothing is said.
const MOST_ARTIFACTS: u32 = 10_000;
/// A list of jobs ends when what they handed on has so many bytes.
const LISTED_BYTES: usize = 8 << 20;
/// So many jobs are read from the store at a time.
const AT_A_TIME: u32 = 250;
/// A wait looks at the run this often at least, should a signal from elsewhere have been lost, and at most: a run of many
/// jobs changes all the time.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(20));
/// The longest wait that is granted.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

impl Core {
    pub(super) async fn run_record(&self, id: RunId) -> Result<RunRecord, ApiError> {
        self.runs_kept()?.run(id).await.map_err(refusal::store)?.ok_or_else(|| no_run(id))
    }

    /// One run.
    pub(crate) async fn run(&self, id: RunId) -> Result<RunView, ApiError> {
        self.run_record(id).await.map(run_view)
    }

    /// Runs, newest first.
    pub(crate) async fn runs(&self, mut query: RunQuery) -> Result<Vec<RunView>, ApiError> {
        query.limit = Some(bounded(query.limit, LISTED, MOST_LISTED, "`before`")?);
        if query.name.as_ref().is_some_and(|name| name.contains('\0')) {
            return Err(refusal::bad("no workflow has a name with NUL in it").with("field", "name"));
        }
        let records = self.runs_kept()?.runs(&query, None).await.map_err(refusal::store)?;
        Ok(records.into_iter().map(run_view).collect())
    }

    /// Jobs of a run, fewer than asked for when they are large.
    pub(crate) async fn run_jobs(&self, id: RunId, from: u32, limit: Option<u32>) -> Result<Vec<RunJobView>, ApiError> {
        let limit = bounded(limit, MOST_LISTED, MOST_LISTED, "`from`")? as usize;
        let store = self.runs_kept()?;
        let (mut views, mut bytes, mut next) = (Vec::new(), 0, from);
        while views.len() < limit {
            let wanted = u32::try_from(limit - views.len()).unwrap_or(u32::MAX).min(AT_A_TIME);
            let page = store.run_jobs(id, next, wanted).await.map_err(refusal::store)?;
            let short = page.len() < wanted as usize;
            for record in page {
                next = record.index.saturating_add(1);
                bytes += record.handed.outputs.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
                views.push(run_job_view(record));
                if bytes >= LISTED_BYTES {
                    return Ok(views);
                }
            }
            if short {
                break;
            }
        }
        if views.is_empty() {
            self.run_record(id).await?;
        }
        Ok(views)
    }

    /// The plan as it was submitted.
    pub(crate) async fn run_plan(&self, id: RunId) -> Result<RunPlan, ApiError> {
        let text = self.runs_kept()?.run_plan(id).await.map_err(refusal::store)?.ok_or_else(|| no_run(id))?;
        let read = tokio::task::spawn_blocking(move || serde_json::from_str(&text)).await;
        read.map_err(|_| refusal::broken())?.map_err(|error| outline::unreadable(id, &error))
    }

    /// Waits until a run is final, at most `most`.
    pub(crate) async fn wait_run(&self, id: RunId, most: Duration) -> Result<RunView, ApiError> {
        let mut watch = self.run_watches.watch(id);
        let deadline = Instant::now() + most.min(LONGEST);
        loop {
            let run = self.run(id).await?;
            let now = Instant::now();
            if run.state.is_final() || now >= deadline || self.is_stopping() {
                return Ok(run);
            }
            // Over or not: the run is looked at.
            let _ = timeout_at(deadline.min(now + LOOK_EVERY.0), watch.changed()).await;
            if Instant::now() < now + LOOK_EVERY.1 {
                sleep(LOOK_EVERY.1).await;
            }
        }
    }

    /// Artifacts, those of the newest run first.
    pub(crate) async fn artifacts(&self, query: ArtifactQuery) -> Result<Vec<ArtifactView>, ApiError> {
        let limit = bounded(query.limit, MOST_ARTIFACTS / 10, MOST_ARTIFACTS, "`run`")?;
        let records = self.runs_kept()?.artifacts(None, query.run, limit).await.map_err(refusal::store)?;
        if let (true, Some(run)) = (records.is_empty(), query.run) {
            self.run_record(run).await?;
        }
        Ok(records.into_iter().map(artifact_view).collect())
    }
}

fn bounded(asked: Option<u32>, usual: u32, most: u32, instead: &str) -> Result<u32, ApiError> {
    let limit = asked.unwrap_or(usual);
    if limit > most {
        let text = format!("`limit` is {limit}; at most {most} are allowed, so go through them with {instead}");
        return Err(refusal::bad(text).with("field", "limit"));
    }
    Ok(limit)
}

pub(super) fn run_view(record: RunRecord) -> RunView {
    RunView {
        id: record.id,
        name: record.name,
        state: record.state,
        created_at: record.created_at,
        started_at: record.started_at,
        completed_at: record.completed_at,
        source: record.source,
        fail_fast: record.fail_fast,
        rerun_of: record.rerun_of,
        message: record.message,
        jobs: record.jobs,
        last_event: record.last_event,
    }
}

fn run_job_view(record: RunJobRecord) -> RunJobView {
    let RunJobRecord { index, name, needs, continue_on_error, job, handed } = record;
    RunJobView {
        index,
        name,
        id: job.id,
        state: job.state,
        needs,
        attempt: job.attempt,
        executor_id: job.worker,
        started_at: job.started_at,
        completed_at: job.completed_at,
        exit_code: job.exit_code,
        error_message: job.error_message,
        continue_on_error,
        outputs: handed.outputs,
        artifacts: handed.artifacts,
    }
}

fn artifact_view(record: ArtifactRecord) -> ArtifactView {
    ArtifactView {
        run: record.run,
        workflow: record.run_name,
        job: record.job,
        created_at: record.created_at,
        artifact: record.artifact,
    }
}
