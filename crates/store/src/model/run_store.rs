//! The model as a store of runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use executr_api::{JobState, RunCancel, RunEvent, RunQuery, RunState, WorkspaceId};
use executr_spec::{Digest, JobId, RunId, Tenant, Timestamp, WorkerId};

use super::ModelStore;
use super::run::Place;
use crate::{
    ArtifactRecord, ClaimedRun, Decision, Handed, NewRun, Question, RunAnswer, RunJobRecord, RunProgress, RunRecord,
    RunStore, StoreError, WorkspaceRecord,
};

#[async_trait]
impl RunStore for ModelStore {
    async fn submit_run(&self, run: NewRun) -> Result<RunAnswer, StoreError> {
        self.state().queue.submit_run(run, self.clock.now())
    }

    async fn questions(&self, limit: u32) -> Result<Vec<Question>, StoreError> {
        Ok(self.state().queue.questions().take(limit as usize).collect())
    }

    async fn questions_of(&self, jobs: &[JobId]) -> Result<Vec<Question>, StoreError> {
        let state = self.state();
        let question = |id: &JobId| state.queue.questions().find(|question| question.job == *id);
        Ok(jobs.iter().filter_map(question).collect())
    }

    async fn decide(&self, decisions: Vec<Decision>) -> Result<RunProgress, StoreError> {
        Ok(self.state().queue.decide(decisions, self.clock.now()))
    }

    async fn cancel_run(
        &self,
        run: RunId,
        how: RunCancel,
        reason: &str,
    ) -> Result<Option<(RunState, RunProgress)>, StoreError> {
        Ok(self.state().queue.cancel_run(run, how, reason, self.clock.now()))
    }

    async fn run(&self, id: RunId) -> Result<Option<RunRecord>, StoreError> {
        let state = self.state();
        Ok(state.queue.find_run(id).map(|(number, _)| state.queue.run_record(number)))
    }

    async fn run_plan(&self, id: RunId) -> Result<Option<Arc<str>>, StoreError> {
        Ok(self.state().queue.find_run(id).map(|(_, run)| run.new.plan.clone()))
    }

    async fn run_counts(&self) -> Result<BTreeMap<RunState, u64>, StoreError> {
        let mut counts = BTreeMap::new();
        for run in self.state().queue.runs.values() {
            *counts.entry(run.state).or_default() += 1;
        }
        Ok(counts)
    }

    async fn runs(&self, query: &RunQuery, tenant: Option<&Tenant>) -> Result<Vec<RunRecord>, StoreError> {
        let state = self.state();
        let before = match query.before {
            Some(id) => state.queue.find_run(id).map_or(0, |(number, _)| number),
            None => u64::MAX,
        };
        let runs = state.queue.runs.range(..before).rev().filter(|(_, run)| {
            query.state.is_none_or(|state| run.state == state)
                && query.name.as_ref().is_none_or(|name| run.new.name == *name)
                && tenant.is_none_or(|tenant| run.new.tenant == *tenant)
        });
        let limit = query.limit.map_or(usize::MAX, |limit| limit as usize);
        Ok(runs.take(limit).map(|(number, _)| state.queue.run_record(*number)).collect())
    }

    async fn run_jobs(&self, run: RunId, from: u32, limit: u32) -> Result<Vec<RunJobRecord>, StoreError> {
        let state = self.state();
        let Some((number, run)) = state.queue.find_run(run) else { return Ok(Vec::new()) };
        let places = state.queue.places(number).skip(from as usize).take(limit as usize);
        let record = |place: Place| {
            let (planned, job) = (run.job(place.index), &state.queue.jobs[&place.number()]);
            RunJobRecord {
                index: place.index,
                name: planned.name.clone(),
                needs: planned.needs.clone(),
                continue_on_error: planned.continue_on_error,
                job: job.record.clone(),
                handed: Handed {
                    outputs: job.handed.clone(),
                    artifacts: state.queue.artifacts_at(place).cloned().collect(),
                },
            }
        };
        Ok(places.map(record).collect())
    }

    async fn claimed_runs(&self, jobs: &[JobId]) -> Result<Vec<(JobId, ClaimedRun)>, StoreError> {
        let state = self.state();
        let claimed = |id: &JobId| {
            let job = state.queue.job(*id)?;
            matches!(job.record.state, JobState::Running | JobState::Cancelling).then_some(())?;
            Some((*id, state.queue.claimed_run(*state.queue.numbers.get(id)?)?))
        };
        Ok(jobs.iter().filter_map(claimed).collect())
    }

    async fn run_of(&self, job: JobId) -> Result<Option<(RunId, String)>, StoreError> {
        let state = self.state();
        let place = state.queue.job(job).and_then(|job| job.place);
        Ok(place.map(|place| {
            let run = &state.queue.runs[&place.run];
            (run.new.id, run.job(place.index).name.clone())
        }))
    }

    async fn events(&self, run: RunId, after: u64, limit: u32) -> Result<Vec<RunEvent>, StoreError> {
        let state = self.state();
        let events = state.queue.find_run(run).map_or(&[][..], |(_, run)| &run.events);
        Ok(events.iter().filter(|event| event.number > after).take(limit as usize).cloned().collect())
    }

    async fn keep_artifact(&self, job: JobId, tree: Digest, blobs: Vec<Digest>) -> Result<(), StoreError> {
        self.state().queue.keep_artifact(job, tree, blobs);
        Ok(())
    }

    async fn artifacts(
        &self,
        tenant: Option<&Tenant>,
        run: Option<RunId>,
        limit: u32,
    ) -> Result<Vec<ArtifactRecord>, StoreError> {
        let mut artifacts = self.state().queue.list_artifacts(tenant, run);
        artifacts.truncate(limit as usize);
        Ok(artifacts)
    }

    async fn delete_artifacts(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        Ok(self.state().queue.delete_artifacts(before, limit as usize))
    }

    async fn workspaces_of(&self, worker: &WorkerId) -> Result<Vec<WorkspaceRecord>, StoreError> {
        Ok(self.state().queue.workspaces_of(worker))
    }

    async fn cleaned(&self, worker: &WorkerId, workspaces: Vec<WorkspaceId>) -> Result<(), StoreError> {
        self.state().queue.cleaned(worker, &workspaces);
        Ok(())
    }

    async fn lose_workspaces(&self, workers: Vec<WorkerId>) -> Result<RunProgress, StoreError> {
        Ok(self.state().queue.lose_workspaces(&workers))
    }
}
