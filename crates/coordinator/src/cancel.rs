//! Cancelling jobs, and waiting until they are over.

use std::sync::Arc;
use std::time::Duration;

use executr_api::{ApiError, BulkCancelAnswer, CancelWait, JobView, RunCancel};
use executr_spec::JobId;
use executr_store::CancelAnswer;
use tokio::time::{Instant, timeout_at};

use crate::core::Core;
use crate::refusal;
use crate::watches::Watch;

/// What stands in the job as the reason.
const REASON: &str = "cancelled by request";
/// A wait looks at the job this often at least, should a signal from elsewhere have been lost.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The longest wait that is granted.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

impl Core {
    /// Cancels a job, running or not.
    pub(crate) async fn cancel(self: &Arc<Self>, id: JobId, wait: CancelWait) -> Result<JobView, ApiError> {
        let watch = self.watches.watch(id);
        let answer = self.cancel_all(vec![id], false).await?.pop().ok_or_else(refusal::broken)?;
        match (answer, wait) {
            (CancelAnswer::NotFound, _) => Err(refusal::no_job(id)),
            (CancelAnswer::Cancelling { .. }, CancelWait::AtMost(most)) => self.wait_on(id, watch, most).await,
            _ => self.job(id).await,
        }
    }

    /// Cancels a job that is still pending.
    pub(crate) async fn cancel_pending(self: &Arc<Self>, id: JobId) -> Result<(), ApiError> {
        let answer = self.cancel_all(vec![id], true).await?.pop().ok_or_else(refusal::broken)?;
        refused(id, &answer).map_or(Ok(()), Err)
    }

    /// Cancels those that are still pending.
    pub(crate) async fn cancel_bulk(self: &Arc<Self>, ids: Vec<JobId>) -> Result<BulkCancelAnswer, ApiError> {
        self.check_bulk(ids.len())?;
        let answers = if ids.is_empty() { Vec::new() } else { self.cancel_all(ids.clone(), true).await? };
        let mut sum = BulkCancelAnswer::default();
        for (id, answer) in ids.into_iter().zip(&answers) {
            match refused(id, answer) {
                None => sum.cancelled += 1,
                Some(error) => {
                    sum.failed += 1;
                    sum.errors.push(error.message);
                }
            }
        }
        Ok(sum)
    }

    async fn cancel_all(self: &Arc<Self>, ids: Vec<JobId>, pending_only: bool) -> Result<Vec<CancelAnswer>, ApiError> {
        let answers = self.store.cancel(ids.clone(), pending_only, REASON).await.map_err(refusal::store)?;
        for (id, answer) in ids.into_iter().zip(&answers) {
            match answer {
                CancelAnswer::Cancelled(cancelled) => {
                    self.observer.cancelled(1);
                    self.readied(&cancelled.readied);
                    self.progressed(&cancelled.run);
                    self.changed(id);
                }
                CancelAnswer::Cancelling { worker, .. } => self.tell_to_stop(id, worker, RunCancel::InOrder),
                CancelAnswer::Running | CancelAnswer::Final(_) | CancelAnswer::NotFound => {}
            }
        }
        Ok(answers)
    }

    /// Waits until a job is final, at most `most`.
    pub(crate) async fn wait(&self, id: JobId, most: Duration) -> Result<JobView, ApiError> {
        let watch = self.watches.watch(id);
        self.wait_on(id, watch, most).await
    }

    async fn wait_on(&self, id: JobId, mut watch: Watch, most: Duration) -> Result<JobView, ApiError> {
        let deadline = Instant::now() + most.min(LONGEST);
        loop {
            let record = self.record_of(id).await?;
            let now = Instant::now();
            if record.state.is_final() || now >= deadline || self.is_stopping() {
                return self.full_view(record).await;
            }
            // Over or not: the job is looked at.
            let _ = timeout_at(deadline.min(now + LOOK_EVERY), watch.changed()).await;
        }
    }
}

/// Why a job that was to be cancelled while pending wasn't.
fn refused(id: JobId, answer: &CancelAnswer) -> Option<ApiError> {
    let state = match answer {
        CancelAnswer::Cancelled(_) => return None,
        CancelAnswer::NotFound => return Some(refusal::no_job(id)),
        CancelAnswer::Running | CancelAnswer::Cancelling { .. } => "running (POST /api/v1/jobs/ID/cancel ends it)",
        CancelAnswer::Final(state) => state.as_str(),
    };
    Some(refusal::bad(format!("job {id} is not pending but {state}")).with("job_id", id))
}
