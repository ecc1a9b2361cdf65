//! The embedded store as a store of runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use executr_api::{RunCancel, RunEvent, RunQuery, RunState, WorkspaceId};
use executr_spec::{Digest, JobId, RunId, Tenant, Timestamp, WorkerId};

use super::{artifacts, events, query, workspace};
use crate::sqlite::store::SqliteStore;
use crate::sqlite::writer::Kind;
use crate::{
    ArtifactRecord, ClaimedRun, Decision, NewRun, Question, RunAnswer, RunJobRecord, RunProgress, RunRecord, RunStore,
    StoreError, WorkspaceRecord,
};

#[async_trait]
impl RunStore for SqliteStore {
    async fn submit_run(&self, run: NewRun) -> Result<RunAnswer, StoreError> {
        self.write(Kind::Submit, move |writer| writer.submit_run(&run)).await
    }

    async fn questions(&self, limit: u32) -> Result<Vec<Question>, StoreError> {
        self.write(Kind::Other, move |writer| writer.questions(limit)).await
    }

    async fn questions_of(&self, jobs: &[JobId]) -> Result<Vec<Question>, StoreError> {
        let jobs = jobs.to_vec();
        self.write(Kind::Other, move |writer| writer.questions_of(&jobs)).await
    }

    async fn decide(&self, decisions: Vec<Decision>) -> Result<RunProgress, StoreError> {
        self.write(Kind::Other, move |writer| writer.decide(&decisions)).await
    }

    async fn cancel_run(
        &self,
        run: RunId,
        how: RunCancel,
        reason: &str,
    ) -> Result<Option<(RunState, RunProgress)>, StoreError> {
        let reason = reason.to_owned();
        self.write(Kind::Cancel, move |writer| writer.cancel_run(run, how, &reason)).await
    }

    async fn run(&self, id: RunId) -> Result<Option<RunRecord>, StoreError> {
        self.read(move |connection| query::run(connection, id)).await
    }

    async fn run_plan(&self, id: RunId) -> Result<Option<Arc<str>>, StoreError> {
        self.read(move |connection| query::run_plan(connection, id)).await
    }

    async fn run_counts(&self) -> Result<BTreeMap<RunState, u64>, StoreError> {
        self.read(query::run_counts).await
    }

    async fn runs(&self, query: &RunQuery, tenant: Option<&Tenant>) -> Result<Vec<RunRecord>, StoreError> {
        let (query, tenant) = (query.clone(), tenant.cloned());
        self.read(move |connection| query::runs(connection, &query, tenant.as_ref())).await
    }

    async fn run_jobs(&self, run: RunId, from: u32, limit: u32) -> Result<Vec<RunJobRecord>, StoreError> {
        self.read(move |connection| query::run_jobs(connection, run, from, limit)).await
    }

    async fn claimed_runs(&self, jobs: &[JobId]) -> Result<Vec<(JobId, ClaimedRun)>, StoreError> {
        let jobs = jobs.to_vec();
        self.write(Kind::Other, move |writer| writer.claimed_runs(&jobs)).await
    }

    async fn run_of(&self, job: JobId) -> Result<Option<(RunId, String)>, StoreError> {
        self.read(move |connection| query::run_of(connection, job)).await
    }

    async fn events(&self, run: RunId, after: u64, limit: u32) -> Result<Vec<RunEvent>, StoreError> {
        self.read(move |connection| events::events(connection, run, after, limit)).await
    }

    async fn keep_artifact(&self, job: JobId, tree: Digest, blobs: Vec<Digest>) -> Result<(), StoreError> {
        self.write(Kind::Other, move |writer| writer.keep_artifact(job, tree, &blobs)).await
    }

    async fn artifacts(
        &self,
        tenant: Option<&Tenant>,
        run: Option<RunId>,
        limit: u32,
    ) -> Result<Vec<ArtifactRecord>, StoreError> {
        let tenant = tenant.cloned();
        self.read(move |connection| artifacts::artifacts(connection, tenant.as_ref(), run, limit)).await
    }

    async fn delete_artifacts(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        self.write(Kind::Sweep, move |writer| writer.delete_artifacts(before, limit)).await
    }

    async fn workspaces_of(&self, worker: &WorkerId) -> Result<Vec<WorkspaceRecord>, StoreError> {
        let worker = worker.clone();
        self.read(move |connection| workspace::workspaces_of(connection, &worker)).await
    }

    async fn cleaned(&self, worker: &WorkerId, workspaces: Vec<WorkspaceId>) -> Result<(), StoreError> {
        let worker = worker.clone();
        self.write(Kind::Other, move |writer| writer.cleaned(&worker, &workspaces)).await
    }

    async fn lose_workspaces(&self, workers: Vec<WorkerId>) -> Result<RunProgress, StoreError> {
        self.write(Kind::Sweep, move |writer| writer.lose_workspaces(&workers)).await
    }
}
