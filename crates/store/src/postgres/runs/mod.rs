//! Runs in PostgreSQL: see `migrations/0002_runs.sql` for what stands where.
//!
//! What follows from what in a run is decided here, by the rules in [`lifecycle::graph`](crate::lifecycle::graph), on
//! what was read of its graph under the lock of its row; it is read and written for all items of a batch at once. The
//! commands of the queue call in here for jobs of runs, which they know by the row they read anyway.
//!
//! # The order of locks
//! Runs by their numbers, then leases, keys, rows of `scheduled`, `blocked` and `ready`, holders of workspaces. A claim locks
//! rows of `ready` first, so it never locks a run: what it has to tell waits in `run_news` for whoever locks the run next,
//! or wants to see its events.
//!
//! What may not live here: rules of a run's life, and what happens to jobs apart from their runs.

mod artifact;
mod ask;
mod code;
mod context;
mod delete;
mod event;
mod follow;
mod locked;
mod show;
mod stop;
mod submit;
mod work;
mod workspace;
mod written;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use executr_api::{RunCancel, RunEvent, RunQuery, RunState, WorkspaceId};
use executr_spec::{Digest, JobId, RunId, Tenant, Timestamp, WorkerId};

pub(super) use self::artifact::let_go;
pub(super) use self::context::contexts;
pub(super) use self::delete::delete_runs;
pub(super) use self::event::News;
pub(super) use self::follow::{Ending, ExitCode, Followed};
pub(super) use self::locked::Runs;
pub(super) use self::work::Work;
pub(super) use self::workspace::{Held, Moved, enter, hold, move_leases, move_users};

use super::PostgresStore;
use crate::{
    ArtifactRecord, ClaimedRun, Decision, NewRun, Question, RunAnswer, RunJobRecord, RunProgress, RunRecord, RunStore,
    StoreError, WorkspaceRecord,
};

#[async_trait]
impl RunStore for PostgresStore {
    async fn submit_run(&self, run: NewRun) -> Result<RunAnswer, StoreError> {
        self.core
            .carry_out(&run, |core, session, run, again| Box::pin(submit::submit_run(core, session, run, again)))
            .await
    }

    async fn questions(&self, limit: u32) -> Result<Vec<Question>, StoreError> {
        self.core.carry_out(&limit, |_, session, limit, _| Box::pin(ask::questions(session, *limit))).await
    }

    async fn questions_of(&self, jobs: &[JobId]) -> Result<Vec<Question>, StoreError> {
        let jobs = jobs.to_vec();
        self.core.carry_out(&jobs, |_, session, jobs, _| Box::pin(ask::questions_of(session, jobs))).await
    }

    async fn decide(&self, decisions: Vec<Decision>) -> Result<RunProgress, StoreError> {
        self.core
            .carry_out(&decisions, |core, session, decisions, _| Box::pin(ask::decide(core, session, decisions)))
            .await
    }

    async fn cancel_run(
        &self,
        run: RunId,
        how: RunCancel,
        reason: &str,
    ) -> Result<Option<(RunState, RunProgress)>, StoreError> {
        let wish = (run, how, reason.to_owned());
        self.core.carry_out(&wish, |core, session, wish, _| Box::pin(stop::cancel_run(core, session, wish))).await
    }

    async fn run(&self, id: RunId) -> Result<Option<RunRecord>, StoreError> {
        self.core.look_up(&id, |_, session, id, _| Box::pin(show::run(session, *id))).await
    }

    async fn run_plan(&self, id: RunId) -> Result<Option<Arc<str>>, StoreError> {
        self.core.look_up(&id, |_, session, id, _| Box::pin(show::plan(session, *id))).await
    }

    async fn run_counts(&self) -> Result<BTreeMap<RunState, u64>, StoreError> {
        self.core.look_up(&(), |_, session, (), _| Box::pin(show::counts(session))).await
    }

    async fn runs(&self, query: &RunQuery, tenant: Option<&Tenant>) -> Result<Vec<RunRecord>, StoreError> {
        let wanted = (query.clone(), tenant.cloned());
        self.core.look_up(&wanted, |_, session, wanted, _| Box::pin(show::list(session, wanted))).await
    }

    async fn run_jobs(&self, run: RunId, from: u32, limit: u32) -> Result<Vec<RunJobRecord>, StoreError> {
        let page = (run, from, limit);
        self.core.look_up(&page, |core, session, page, _| Box::pin(show::jobs(core, session, page))).await
    }

    async fn claimed_runs(&self, jobs: &[JobId]) -> Result<Vec<(JobId, ClaimedRun)>, StoreError> {
        let jobs = jobs.to_vec();
        self.core.carry_out(&jobs, |_, session, jobs, _| Box::pin(context::claimed_runs(session, jobs))).await
    }

    async fn run_of(&self, job: JobId) -> Result<Option<(RunId, String)>, StoreError> {
        self.core.look_up(&job, |_, session, job, _| Box::pin(show::run_of(session, *job))).await
    }

    async fn events(&self, run: RunId, after: u64, limit: u32) -> Result<Vec<RunEvent>, StoreError> {
        let wanted = (run, after, limit);
        self.core.look_up(&wanted, |core, session, wanted, _| Box::pin(event::read(core, session, wanted))).await
    }

    async fn keep_artifact(&self, job: JobId, tree: Digest, blobs: Vec<Digest>) -> Result<(), StoreError> {
        let keeping = (job, tree, blobs);
        self.core.carry_out(&keeping, |_, session, keeping, _| Box::pin(artifact::keep(session, keeping))).await
    }

    async fn artifacts(
        &self,
        tenant: Option<&Tenant>,
        run: Option<RunId>,
        limit: u32,
    ) -> Result<Vec<ArtifactRecord>, StoreError> {
        let wanted = (tenant.cloned(), run, limit);
        self.core.look_up(&wanted, |_, session, wanted, _| Box::pin(artifact::list(session, wanted))).await
    }

    async fn delete_artifacts(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let wish = (before, limit);
        self.core
            .carry_out(&wish, |_, session, (before, limit), _| Box::pin(artifact::delete(session, *before, *limit)))
            .await
    }

    async fn workspaces_of(&self, worker: &WorkerId) -> Result<Vec<WorkspaceRecord>, StoreError> {
        self.core.carry_out(worker, |_, session, worker, _| Box::pin(workspace::of_worker(session, worker))).await
    }

    async fn cleaned(&self, worker: &WorkerId, workspaces: Vec<WorkspaceId>) -> Result<(), StoreError> {
        let done = (worker.clone(), workspaces);
        self.core.carry_out(&done, |_, session, done, _| Box::pin(workspace::cleaned(session, done))).await
    }

    async fn lose_workspaces(&self, workers: Vec<WorkerId>) -> Result<RunProgress, StoreError> {
        self.core
            .carry_out(&workers, |core, session, workers, _| Box::pin(workspace::lose(core, session, workers)))
            .await
    }
}
