//! The little of a plan that is needed while its run goes on: a plan can have many megabytes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use executr_api::{ApiError, ErrorCode, WorkspaceJob};
use executr_spec::workflow::ExecutorChoice;
use executr_spec::{Condition, RunId};
use serde::Deserialize;
use tokio::sync::OnceCell;

use super::{check, no_run};
use crate::core::Core;
use crate::lock::Lock;
use crate::refusal;

/// The outlines of so many runs are remembered.
const REMEMBERED: usize = 256;

/// What stands in a plan about conditions and workspaces.
#[derive(Debug, Default)]
pub(crate) struct Outline {
    /// The conditions that a store can't decide, by the jobs' places.
    pub(super) conditions: HashMap<u32, Condition>,
    /// The jobs on each executor that holds its workspace on one worker.
    pub(super) workspaces: HashMap<String, Vec<WorkspaceJob>>,
}

/// Those that were needed lately.
#[derive(Debug, Default)]
pub(crate) struct Outlines(Lock<VecDeque<(RunId, Arc<Once>)>>);

/// Read once, however many ask.
type Once = OnceCell<Arc<Outline>>;

impl Outlines {
    fn of(&self, run: RunId) -> Arc<Once> {
        let mut remembered = self.0.hold();
        if let Some((_, outline)) = remembered.iter().find(|(of, _)| *of == run) {
            return Arc::clone(outline);
        }
        if remembered.len() >= REMEMBERED {
            remembered.pop_front();
        }
        let outline = Arc::default();
        remembered.push_back((run, Arc::clone(&outline)));
        outline
    }
}

impl Core {
    /// The outline of a run's plan.
    pub(super) async fn outline(&self, run: RunId) -> Result<Arc<Outline>, ApiError> {
        let remembered = self.outlines.of(run);
        let outline = remembered.get_or_try_init(|| async {
            let plan = self.runs_kept()?.run_plan(run).await.map_err(refusal::store)?.ok_or_else(|| no_run(run))?;
            let read = tokio::task::spawn_blocking(move || Outline::read(&plan)).await;
            let outline = read.map_err(|_| refusal::broken())?.map_err(|error| unreadable(run, &error))?;
            Ok::<_, ApiError>(Arc::new(outline))
        });
        outline.await.cloned()
    }
}

/// A stored plan that this program can't read.
pub(super) fn unreadable(run: RunId, error: &serde_json::Error) -> ApiError {
    let text = format!("run {run} was stored in a form that this version doesn't read: {error}; upgrade this server");
    ApiError::new(ErrorCode::Internal, text).with("run_id", run)
}

#[derive(Deserialize)]
struct Plan {
    jobs: Vec<Job>,
}

#[derive(Deserialize)]
struct Job {
    name: String,
    #[serde(default, rename = "if")]
    condition: Condition,
    spec: Spec,
}

#[derive(Deserialize)]
struct Spec {
    steps: Vec<Step>,
    #[serde(default)]
    workflow: Workflow,
}

#[derive(Deserialize)]
struct Step {
    #[serde(default)]
    name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Workflow {
    executor: ExecutorChoice,
}

impl Outline {
    fn read(plan: &str) -> Result<Self, serde_json::Error> {
        let plan: Plan = serde_json::from_str(plan)?;
        let mut outline = Self::default();
        for (index, job) in (0..).zip(plan.jobs) {
            if matches!(job.condition, Condition::Expression(_)) {
                outline.conditions.insert(index, job.condition);
            }
            if let Some(executor) = check::pinned(&job.spec.workflow.executor) {
                let steps = (1..)
                    .zip(job.spec.steps)
                    .map(|(number, step): (u32, _)| step.name.unwrap_or_else(|| number.to_string()));
                let job = WorkspaceJob { name: job.name, steps: steps.collect() };
                outline.workspaces.entry(executor.to_owned()).or_default().push(job);
            }
        }
        Ok(outline)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_outline_has_the_expressions_and_who_shares_a_workspace() {
        let job = |name: &str, condition: &str, executor| {
            json!({
                "name": name, "if": condition, "needs": [],
                "spec": {"steps": [{"run": "a"}, {"run": "b", "name": "second"}],
                         "workflow": {"name": name, "executor": executor}},
            })
        };
        let hooks = json!({"kind": "hooks", "name": "h", "options": {}});
        let plan = json!({"name": "w", "jobs": [
            job("a", "success()", json!({"kind": "local"})),
            job("b", "${{ matrix.x == 1 }}", hooks.clone()),
            job("c", "test -f x", hooks),
            job("d", "always()", json!({"kind": "hooks"})),
        ]});
        let outline = Outline::read(&plan.to_string()).expect("a plan");
        assert_eq!(outline.conditions, HashMap::from([(1, Condition::Expression("matrix.x == 1".to_owned()))]));
        let of = |name: &str| WorkspaceJob { name: name.to_owned(), steps: vec!["1".to_owned(), "second".to_owned()] };
        assert_eq!(outline.workspaces["h"], [of("b"), of("c")]);
        assert_eq!(outline.workspaces["hooks"], [of("d")]);
    }

    #[test]
    fn few_outlines_are_remembered_and_each_is_the_same_for_all() {
        let outlines = Outlines::default();
        let run = |n: u128| RunId(uuid::Uuid::from_u128(n));
        let first = outlines.of(run(0));
        assert!(Arc::ptr_eq(&first, &outlines.of(run(0))));
        for n in 1..=REMEMBERED as u128 {
            outlines.of(run(n));
        }
        assert!(!Arc::ptr_eq(&first, &outlines.of(run(0))));
    }
}
