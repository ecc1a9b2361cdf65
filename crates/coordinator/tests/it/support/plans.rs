//! Plans of runs, as short as a test can say them.

use executr_api::{RunClient, RunEvent, RunEventFollow, RunEventKind, RunSubmission, RunView};
use executr_coordinator::Coordinator;
use executr_spec::workflow::{ArtifactInput, ArtifactOutput, ExecutorChoice, PlannedJob, RunPlan, WorkflowJob};
use executr_spec::{Condition, ExecutorKind, JobSpec, RunId, Step, StepCommand};
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_json::json;

use super::client;

/// A plan in the making.
#[derive(Clone)]
pub(crate) struct Plan(pub(crate) RunPlan);

impl Plan {
    /// Jobs, each as its name, the names of those it needs, and its condition if it has one: `"c: a b if always()"`.
    pub(crate) fn new(jobs: &[&str]) -> Self {
        let plan = RunPlan { name: "w".to_owned(), fail_fast: true, timeout: None, source: None, jobs: Vec::new() };
        jobs.iter().fold(Self(plan), |mut plan, job| {
            let (graph, condition) = job.split_once(" if ").unwrap_or((job, "success()"));
            let (name, needs) = graph.split_once(':').unwrap_or((graph, ""));
            let needs: Vec<&str> = needs.split_whitespace().collect();
            plan.add(name, &needs, condition);
            plan
        })
    }

    fn add(&mut self, name: &str, needs: &[&str], condition: &str) {
        let place = |need: &&str| self.0.jobs.iter().position(|job| job.name == *need).unwrap() as u32;
        let mut places: Vec<u32> = needs.iter().map(place).collect();
        places.sort_unstable();
        let mut spec = JobSpec::new(vec![Step::new(StepCommand::Run("true".to_owned()))]);
        spec.workflow = Some(Box::new(WorkflowJob {
            workflow: "w".to_owned(),
            name: name.to_owned(),
            needs: needs.iter().map(|need| ((*need).to_owned(), vec![(*need).to_owned()])).collect(),
            ..WorkflowJob::default()
        }));
        let condition = Condition::parse(condition);
        self.0.jobs.push(PlannedJob {
            name: name.to_owned(),
            needs: places,
            condition,
            continue_on_error: false,
            spec,
        });
    }

    /// Changes one of its jobs.
    pub(crate) fn with(mut self, name: &str, change: impl FnOnce(&mut PlannedJob, &mut WorkflowJob)) -> Self {
        let job = self.0.jobs.iter_mut().find(|job| job.name == name).unwrap();
        let mut workflow = job.spec.workflow.take().unwrap();
        change(job, &mut workflow);
        job.spec.workflow = Some(workflow);
        self
    }

    /// These jobs share a workspace, by hooks.
    pub(crate) fn pinned(self, names: &[&str]) -> Self {
        let executor =
            ExecutorChoice { kind: ExecutorKind::Hooks, name: "shared".to_owned(), options: json!({"setup": "true"}) };
        names.iter().fold(self, |plan, name| plan.with(name, |_, workflow| workflow.executor = executor.clone()))
    }

    /// The job makes an artifact.
    pub(crate) fn makes(self, name: &str, artifact: &str) -> Self {
        let output = ArtifactOutput { name: artifact.to_owned(), path: artifact.to_owned() };
        self.with(name, |_, workflow| workflow.outputs.push(output))
    }

    /// The job gets an artifact of another.
    pub(crate) fn gets(self, name: &str, artifact: &str, from: &str) -> Self {
        let input = ArtifactInput { name: artifact.to_owned(), from: from.to_owned(), path: String::new() };
        self.with(name, |_, workflow| workflow.inputs.push(input))
    }

    pub(crate) fn submission(self) -> RunSubmission {
        RunSubmission { plan: self.0, idempotency_key: None }
    }

    pub(crate) async fn submit(self, coordinator: &Coordinator) -> RunView {
        client(coordinator).submit_run(self.submission()).await.unwrap()
    }
}

/// What happened in a run so far, in short.
pub(crate) async fn events(coordinator: &Coordinator, run: RunId) -> Vec<String> {
    let events = client(coordinator).run_events(run, RunEventFollow::default()).await.unwrap();
    let events: Vec<RunEvent> = events.try_collect().await.unwrap();
    assert!(events.iter().zip(1..).all(|(event, number)| event.number == number), "{events:?}");
    events.iter().map(said).collect()
}

/// All that happens in a run, in short, until its end.
pub(crate) fn follow(coordinator: &Coordinator, run: RunId, after: u64) -> tokio::task::JoinHandle<Vec<String>> {
    let client = client(coordinator);
    tokio::spawn(async move {
        let events = client.run_events(run, RunEventFollow { after, follow: true }).await.unwrap();
        events.map(|event| said(&event.unwrap())).collect().await
    })
}

fn said(event: &RunEvent) -> String {
    match &event.kind {
        RunEventKind::JobStarted { job, attempt, .. } => format!("{job} started {attempt}"),
        RunEventKind::JobRetrying { job, attempt, .. } => format!("{job} retrying {attempt}"),
        RunEventKind::JobEnded { job, state, .. } => format!("{job} {state}"),
        RunEventKind::RunEnded { state } => format!("run {}", state.as_str()),
        other => other.as_str().to_owned(),
    }
}
