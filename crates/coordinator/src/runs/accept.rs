//! Taking runs in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use executr_api::{ApiError, RunSubmission, RunView};
use executr_spec::workflow::{PlannedJob, RunPlan};
use executr_spec::{Digest, RunId, Tenant};
use executr_store::{Done, Handed, NewRun, NewRunJob};
use uuid::Uuid;

use super::{check, gate};
use crate::core::Core;
use crate::refusal;
use crate::submission::new_job;

/// Keys that begin so are a matrix's own (`max_parallel`): each run has its own of them.
const MATRIX_KEY: &str = "matrix:";

/// Where a run comes from, besides its plan.
#[derive(Debug, Default)]
pub(super) struct Origin {
    pub(super) idempotency_key: Option<String>,
    pub(super) rerun_of: Option<RunId>,
    /// What is done already, by place. Which blobs that keeps is found out here.
    pub(super) done: HashMap<u32, Handed>,
}

/// A plan as rows, and what has to be looked up before they are recorded.
struct Prepared {
    run: NewRun,
    /// The blobs that jobs name.
    blobs: BTreeSet<Digest>,
}

impl Core {
    /// Takes a run in.
    pub(crate) async fn submit_run(
        self: &Arc<Self>,
        tenant: &Tenant,
        submission: RunSubmission,
    ) -> Result<RunView, ApiError> {
        let RunSubmission { plan, idempotency_key } = submission;
        if idempotency_key.as_ref().is_some_and(|key| key.is_empty() || key.len() > 256 || key.contains('\0')) {
            return Err(
                refusal::bad("idempotency_key: give 1 to 256 bytes without NUL").with("field", "idempotency_key")
            );
        }
        self.record_run(tenant, plan, Origin { idempotency_key, ..Origin::default() }).await
    }

    pub(super) async fn record_run(
        self: &Arc<Self>,
        tenant: &Tenant,
        plan: RunPlan,
        origin: Origin,
    ) -> Result<RunView, ApiError> {
        self.refuse_when_stopping()?;
        let store = self.runs_kept()?;
        let tenant = tenant.clone();
        // A plan of 100,000 jobs takes a while to be read and written.
        let prepared = tokio::task::spawn_blocking(move || prepare(tenant, plan, origin)).await;
        let Prepared { mut run, blobs: mut all } = prepared.map_err(|_| refusal::broken())??;
        if let Some(source) = run.source {
            run.blobs = self.tree(source).await.map_err(|error| error.with("field", "source"))?.blobs;
            all.extend(run.blobs.iter().copied());
        }
        // The trees of artifacts that are handed over go with them, and may have gone.
        for done in run.jobs.iter_mut().filter_map(|job| job.done.as_mut()) {
            for artifact in &done.handed.artifacts {
                let tree = self.tree(artifact.tree).await.map_err(|error| error.with("artifact", &artifact.name))?;
                all.extend(tree.blobs.iter().copied());
                done.kept.push((artifact.tree, tree.blobs));
            }
        }
        self.check_all_there(all).await?;
        let jobs = run.jobs.len() as u64;
        let answer = store.submit_run(run).await.map_err(refusal::store)?;
        if !answer.existing {
            self.observer.submitted(jobs);
        }
        self.progressed(&answer.progress);
        self.run(answer.id).await
    }

    /// Refuses when blobs are missing, saying how many.
    async fn check_all_there(&self, blobs: BTreeSet<Digest>) -> Result<(), ApiError> {
        let all = blobs.len();
        let missing = self.lacking(blobs).await?;
        let Some(first) = missing.first() else { return Ok(()) };
        let text = format!(
            "the server lacks {} of the {all} blobs of this run, {first} for one; upload them first (PUT /api/v1/blobs/SHA256)",
            missing.len()
        );
        Err(refusal::bad(text).with("missing", missing.len()).with("blob", first))
    }
}

/// Checks a plan and makes rows of it.
fn prepare(tenant: Tenant, plan: RunPlan, origin: Origin) -> Result<Prepared, ApiError> {
    check::check(&plan)?;
    let text = serde_json::to_string(&plan)
        .map_err(|error| refusal::bad(format!("the plan can't be written as JSON: {error}")))?;
    let Origin { idempotency_key, rerun_of, mut done } = origin;
    let id = RunId(Uuid::now_v7());
    let mut blobs = BTreeSet::new();
    let places: BTreeMap<String, u32> = (0..).zip(&plan.jobs).map(|(place, job)| (job.name.clone(), place)).collect();
    let mut jobs = Vec::with_capacity(plan.jobs.len());
    for (index, planned) in plan.jobs.into_iter().enumerate() {
        let at = |error: ApiError| error.with("index", index);
        let place = u32::try_from(index).map_err(|_| refusal::broken())?;
        let job = run_job(&tenant, id, place, planned, &places, done.remove(&place)).map_err(at)?;
        blobs.extend(job.job.blobs.iter().copied());
        jobs.push(job);
    }
    let run = NewRun {
        id,
        tenant,
        name: plan.name,
        fail_fast: plan.fail_fast,
        timeout: plan.timeout.map(|timeout| timeout.0),
        source: plan.source,
        rerun_of,
        plan: text.into(),
        blobs: Vec::new(),
        idempotency_key,
        jobs,
    };
    Ok(Prepared { run, blobs })
}

fn run_job(
    tenant: &Tenant,
    run: RunId,
    place: u32,
    planned: PlannedJob,
    places: &BTreeMap<String, u32>,
    done: Option<Handed>,
) -> Result<NewRunJob, ApiError> {
    let PlannedJob { name, needs, condition, continue_on_error, spec } = planned;
    let within = |error| refusal::spec(check::within(place as usize, &name, error));
    let mut job = new_job(tenant, &spec).map_err(|error| {
        let text = format!("jobs[{place}].spec: {error} (job `{}`)", name.escape_debug());
        ApiError { message: text, ..error }
    })?;
    if let Some((key, _)) = &mut job.concurrency
        && key.starts_with(MATRIX_KEY)
    {
        *key = format!("run:{run}:{key}");
    }
    let workflow = spec.workflow.as_deref();
    let mut inputs = Vec::new();
    for (number, input) in workflow.map_or(&[][..], |workflow| &workflow.inputs).iter().enumerate() {
        let from = places.get(&input.from).filter(|from| **from < place);
        let Some(from) = from else {
            let field = format!("spec.workflow.inputs[{number}].from");
            let problem = format!("`{}` is no job before this one; name the one that makes it", input.from);
            return Err(within(executr_spec::SpecError { field, problem }));
        };
        inputs.push((*from, input.name.clone()));
    }
    let pinned = workflow.and_then(|workflow| check::pinned(&workflow.executor)).map(str::to_owned);
    let done = done.map(|handed| Done { handed, kept: Vec::new() });
    Ok(NewRunJob { job, gate: gate::gate(&condition), name, needs, continue_on_error, pinned, inputs, done })
}
