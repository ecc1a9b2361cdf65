//! What follows when the store says that runs changed.

use std::sync::Arc;

use executr_api::{ApiError, JobState, RunCancel, RunView};
use executr_spec::{JobId, RunId, WorkerId};
use executr_store::{RunProgress, Signal};

use super::no_run;
use crate::core::Core;
use crate::refusal;

/// What stands in the run as the reason.
const REASON: &str = "cancelled by request";

impl Core {
    /// Lets everybody know whom it concerns. Whatever changes runs in the store comes here.
    pub(crate) fn progressed(self: &Arc<Self>, progress: &RunProgress) {
        for run in &progress.changed {
            self.run_watches.changed(*run);
            self.store.publish(Signal::Run(*run));
        }
        for run in &progress.over {
            self.observer.run_ended(run.state, run.completed_at.since(run.created_at));
        }
        for (job, state) in &progress.ended {
            match state {
                JobState::Cancelled => self.observer.cancelled(1),
                JobState::Failed => self.observer.failed(None),
                _ => {}
            }
            self.changed(*job);
        }
        for (fence, worker) in &progress.cancelling {
            self.tell_to_stop(fence.job, worker, RunCancel::InOrder);
        }
        for (fence, worker) in &progress.at_once {
            self.tell_to_stop(fence.job, worker, RunCancel::AtOnce);
        }
        for (workspace, worker) in &progress.released {
            // A worker that is elsewhere hears of it there, by the signal that its run changed.
            if let Some(session) = self.sessions.get(worker) {
                session.released(workspace);
            }
        }
        self.readied(&progress.readied);
        self.ask(&progress.asked);
    }

    /// Asks a run to stop.
    pub(crate) async fn cancel_run(self: &Arc<Self>, id: RunId, how: RunCancel) -> Result<RunView, ApiError> {
        let answer = self.runs_kept()?.cancel_run(id, how, REASON).await.map_err(refusal::store)?;
        let (_, progress) = answer.ok_or_else(|| no_run(id))?;
        self.progressed(&progress);
        self.run(id).await
    }

    /// A running job was asked to stop: its worker is told, here or elsewhere.
    pub(crate) fn tell_to_stop(&self, job: JobId, worker: &WorkerId, how: RunCancel) {
        let session = self.sessions.get(worker);
        let here = session.as_ref().is_some_and(|session| session.is_open());
        if let Some(session) = session {
            session.cancelling(job, how);
        }
        // A worker whose exchange isn't open here may have it open elsewhere.
        if !here {
            self.store.publish(Signal::Cancelling(job, worker.clone(), how));
        }
    }
}
