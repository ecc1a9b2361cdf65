//! Repeating runs.

use std::collections::HashMap;
use std::sync::Arc;

use executr_api::{ApiError, ErrorCode, JobState, RerunScope, RunView};
use executr_spec::{RunId, Tenant};
use executr_store::{Handed, RunJobRecord};

use super::accept::Origin;
use crate::core::Core;
use crate::refusal;

/// So many jobs are read from the store at a time.
const AT_A_TIME: u32 = 250;

impl Core {
    /// Submits an earlier run's plan again.
    pub(crate) async fn rerun(
        self: &Arc<Self>,
        tenant: &Tenant,
        id: RunId,
        scope: RerunScope,
    ) -> Result<RunView, ApiError> {
        let run = self.run_record(id).await?;
        let done = match scope {
            RerunScope::All => HashMap::new(),
            RerunScope::Failed if run.state.is_final() => {
                let kept = self.kept_of(id).await?;
                if kept.good.iter().all(|good| *good) {
                    let text = format!("nothing failed in run {id}; repeat all of it, or leave it");
                    return Err(ApiError::new(ErrorCode::Conflict, text).with("run_id", id));
                }
                kept.done
            }
            RerunScope::Failed => {
                let text = format!("run {id} is {}; wait for its end, or cancel it", run.state.as_str());
                return Err(ApiError::new(ErrorCode::Conflict, text).with("run_id", id));
            }
        };
        let plan = self.run_plan(id).await?;
        self.record_run(tenant, plan, Origin { rerun_of: Some(id), done, ..Origin::default() }).await
    }

    /// What need not be done again, by place.
    async fn kept_of(&self, run: RunId) -> Result<Kept, ApiError> {
        let (mut kept, mut next) = (Kept::default(), 0);
        loop {
            let page = self.runs_kept()?.run_jobs(run, next, AT_A_TIME).await.map_err(refusal::store)?;
            let short = page.len() < AT_A_TIME as usize;
            for job in page {
                next = job.index.saturating_add(1);
                kept.look_at(job);
            }
            if short {
                return Ok(kept);
            }
        }
    }
}

/// What stands after the jobs looked at so far, in the order of their places.
#[derive(Default)]
struct Kept {
    done: HashMap<u32, Handed>,
    /// Whether what comes after the job at a place is still good.
    good: Vec<bool>,
}

impl Kept {
    fn look_at(&mut self, job: RunJobRecord) {
        let before = job.needs.iter().all(|need| self.good.get(*need as usize).copied().unwrap_or(false));
        // What was skipped is decided again, to the same end when all before it is the same.
        let good = before && matches!(job.job.state, JobState::Completed | JobState::Skipped);
        self.good.resize(job.index as usize, false);
        self.good.push(good);
        if good && job.job.state == JobState::Completed {
            self.done.insert(job.index, job.handed);
        }
    }
}
