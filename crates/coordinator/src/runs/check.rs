//! Whether a plan is one: what its types can't say.

use std::collections::{HashMap, HashSet};

use executr_api::ApiError;
use executr_spec::workflow::{
    ExecutorChoice, MAX_RUN_JOBS, MAX_RUN_NEEDS, PlannedJob, RunPlan, WorkflowJob, wrong_characters,
};
use executr_spec::{Digest, SpecError};

use super::gate;
use crate::refusal;

/// The most bytes of the name of a workflow, a job or an artifact.
const MAX_NAME: usize = 256;

/// Checks a plan.
///
/// # Errors
/// The first thing that is wrong, with its place and what to do.
pub(super) fn check(plan: &RunPlan) -> Result<(), ApiError> {
    name("name", &plan.name)?;
    if plan.timeout.is_some_and(|timeout| timeout.0.is_zero()) {
        return Err(wrong("timeout", "0s would end the run at once; leave it out for no limit"));
    }
    if plan.jobs.is_empty() {
        return Err(wrong("jobs", "is empty; there is nothing to run"));
    }
    if plan.jobs.len() > MAX_RUN_JOBS {
        let text = format!("has {} entries; at most {MAX_RUN_JOBS} are allowed, so make several runs", plan.jobs.len());
        return Err(wrong("jobs", text));
    }
    let mut seen = Seen { source: plan.source, ..Seen::default() };
    for (index, job) in plan.jobs.iter().enumerate() {
        let at = |error: SpecError| refusal::spec(within(index, &job.name, error)).with("index", index);
        seen.job(index, job).map_err(at)?;
    }
    Ok(())
}

/// What stands in the jobs looked at so far.
#[derive(Default)]
struct Seen<'a> {
    /// The tree the run starts from.
    source: Option<Digest>,
    names: HashSet<&'a str>,
    artifacts: HashSet<&'a str>,
    needs: usize,
    /// Of each executor that holds its workspace on one worker: the first job on it.
    pinned: HashMap<&'a str, &'a PlannedJob>,
}

impl<'a> Seen<'a> {
    fn job(&mut self, index: usize, job: &'a PlannedJob) -> Result<(), SpecError> {
        check_part("name", &job.name)?;
        if !self.names.insert(&job.name) {
            return Err(problem("name", "another job of the run has it; names are unique"));
        }
        self.needs(index, job)?;
        gate::check(&job.condition).map_err(|text| problem("if", text))?;
        job.spec.validate().map_err(|error| SpecError { field: format!("spec.{}", error.field), ..error })?;
        if job.spec.idempotency_key.is_some() {
            return Err(problem("spec.idempotency_key", "belongs to single jobs; give the run one"));
        }
        if job.spec.run_at.is_some() {
            return Err(problem("spec.run_at", "belongs to single jobs; submit the run when it is time"));
        }
        let workflow = job.spec.workflow.as_deref();
        let workflow = workflow.ok_or_else(|| problem("spec.workflow", "is missing; a job of a run has it"))?;
        if workflow.name != job.name {
            let text = format!("is `{}`, and has to be the job's name", workflow.name.escape_debug());
            return Err(problem("spec.workflow.name", text));
        }
        let trees = [("spec.workflow.source", workflow.source), ("spec.workflow.env_source", workflow.env_source)];
        if let Some((field, _)) = trees.into_iter().find(|(_, tree)| tree.is_some() && *tree != self.source) {
            return Err(problem(field, "is another tree than the plan's `source`; a run starts from one"));
        }
        self.artifacts(workflow)?;
        self.pinned(job, &workflow.executor)
    }

    fn needs(&mut self, index: usize, job: &PlannedJob) -> Result<(), SpecError> {
        if !job.needs.is_sorted_by(|a, b| a < b) {
            return Err(problem("needs", "is not sorted, or names a job twice"));
        }
        if let Some(last) = job.needs.last()
            && *last as usize >= index
        {
            return Err(problem("needs", format!("names place {last}; a job stands after those it needs")));
        }
        self.needs += job.needs.len();
        if self.needs > MAX_RUN_NEEDS {
            return Err(problem("needs", format!("the jobs up to here have more than {MAX_RUN_NEEDS} needs together")));
        }
        Ok(())
    }

    fn artifacts(&mut self, workflow: &'a WorkflowJob) -> Result<(), SpecError> {
        for (place, input) in workflow.inputs.iter().enumerate() {
            check_part(&format!("spec.workflow.inputs[{place}].name"), &input.name)?;
        }
        for (place, output) in workflow.outputs.iter().enumerate() {
            let field = format!("spec.workflow.outputs[{place}].name");
            check_part(&field, &output.name)?;
            if !self.artifacts.insert(&output.name) {
                let text = format!("two of the run's artifacts are called `{}`; give one another name", output.name);
                return Err(problem(&field, text));
            }
        }
        if let Some(modified) = &workflow.modified {
            let field = "spec.workflow.modified.name";
            check_part(field, &modified.name)?;
            if !self.artifacts.insert(&modified.name) {
                let text = format!("two of the run's artifacts are called `{}`; give one another name", modified.name);
                return Err(problem(field, text));
            }
        }
        Ok(())
    }

    /// Jobs that share a workspace on one worker have to fit on one.
    fn pinned(&mut self, job: &'a PlannedJob, executor: &'a ExecutorChoice) -> Result<(), SpecError> {
        // One that isn't named is called as its kind.
        if !executor.name.is_empty() {
            check_part("spec.workflow.executor.name", &executor.name)?;
        }
        let Some(name) = pinned(executor) else { return Ok(()) };
        let first = *self.pinned.entry(name).or_insert(job);
        let other = |what| {
            let text = format!(
                "its {what} differ from those of `{}`, with which it shares the executor `{name}` and so a worker; make them equal, or name another executor",
                first.name
            );
            problem("spec", text)
        };
        let settings = first.spec.workflow.as_deref().map(|workflow| &workflow.executor);
        if settings.is_some_and(|settings| (settings.kind, &settings.options) != (executor.kind, &executor.options)) {
            return Err(other("executor's settings"));
        }
        if first.spec.queue != job.spec.queue || first.spec.requirements() != job.spec.requirements() {
            return Err(other("queue, labels or resources"));
        }
        Ok(())
    }
}

/// The name of an executor that holds its workspace on one worker; `None` for the others.
pub(super) fn pinned(executor: &ExecutorChoice) -> Option<&str> {
    use executr_spec::ExecutorKind;
    match executor.kind {
        // A host has its jobs' directories, whichever worker they come from.
        ExecutorKind::Local | ExecutorKind::Command | ExecutorKind::Ssh => None,
        // Nothing is shared where each job has a container of its own.
        ExecutorKind::Oci if !executor.shares_a_container() => None,
        ExecutorKind::Hooks | ExecutorKind::Oci if executor.name.is_empty() => Some(executor.kind.as_str()),
        ExecutorKind::Hooks | ExecutorKind::Oci => Some(&executor.name),
    }
}

/// The same problem with its place in the plan.
pub(super) fn within(index: usize, job: &str, error: SpecError) -> SpecError {
    let SpecError { field, problem } = error;
    let shown: String = job.chars().take(60).collect();
    SpecError {
        field: format!("jobs[{index}].{field}"),
        problem: format!("{problem} (job `{}`)", shown.escape_debug()),
    }
}

fn name(field: &str, name: &str) -> Result<(), ApiError> {
    check_name(field, name).map_err(refusal::spec)
}

fn check_name(field: &str, name: &str) -> Result<(), SpecError> {
    if name.is_empty() || name.len() > MAX_NAME || name.contains(char::is_control) {
        return Err(problem(field, format!("give 1 to {MAX_NAME} bytes without control characters")));
    }
    Ok(())
}

/// Names of jobs, executors and artifacts become parts of paths on workers.
fn check_part(field: &str, name: &str) -> Result<(), SpecError> {
    check_name(field, name)?;
    wrong_characters(name).map_or(Ok(()), |text| Err(problem(field, text)))
}

fn wrong(field: &str, text: impl Into<String>) -> ApiError {
    refusal::spec(problem(field, text))
}

fn problem(field: &str, text: impl Into<String>) -> SpecError {
    SpecError { field: field.to_owned(), problem: text.into() }
}

#[cfg(test)]
mod tests {
    use executr_spec::workflow::{ArtifactInput, ArtifactOutput};
    use executr_spec::{Condition, ExecutorKind, JobSpec, Span, Step, StepCommand};
    use serde_json::json;

    use super::*;

    fn job(name: &str, needs: &[u32]) -> PlannedJob {
        let mut spec = JobSpec::new(vec![Step::new(StepCommand::Run("true".to_owned()))]);
        spec.workflow = Some(Box::new(WorkflowJob { name: name.to_owned(), ..WorkflowJob::default() }));
        PlannedJob {
            name: name.to_owned(),
            needs: needs.to_vec(),
            condition: Condition::Success,
            continue_on_error: false,
            spec,
        }
    }

    fn plan() -> RunPlan {
        let jobs = vec![job("a", &[]), job("b", &[0]), job("c", &[0, 1])];
        RunPlan { name: "w".to_owned(), fail_fast: true, timeout: None, source: None, jobs }
    }

    fn workflow(job: &mut PlannedJob) -> &mut WorkflowJob {
        job.spec.workflow.as_mut().expect("it has one")
    }

    fn hooks(job: &mut PlannedJob) {
        workflow(job).executor =
            ExecutorChoice { kind: ExecutorKind::Hooks, name: "h".to_owned(), options: json!({"setup": "x"}) };
    }

    #[test]
    fn a_plan_that_can_run_passes() {
        check(&plan()).expect("a plan");
        let mut shared = plan();
        shared.jobs.iter_mut().for_each(hooks);
        check(&shared).expect("a plan");
    }

    #[test]
    fn names_that_become_paths_lead_nowhere_else() {
        for name in ["/home/worker", "..", "../..", "a/b", "a\\b", ".hidden", "-x", "a\0", "a b", ""] {
            let mut plans = [plan(), plan(), plan(), plan()];
            plans[0].jobs[0] = job(name, &[]);
            hooks(&mut plans[1].jobs[0]);
            workflow(&mut plans[1].jobs[0]).executor.name = if name.is_empty() { "/" } else { name }.to_owned();
            let (path, from) = ("p".to_owned(), "a".to_owned());
            workflow(&mut plans[2].jobs[0]).outputs.push(ArtifactOutput { name: name.to_owned(), path: path.clone() });
            workflow(&mut plans[3].jobs[1]).inputs.push(ArtifactInput { name: name.to_owned(), from, path });
            let fields = ["name", "spec.workflow.executor.name", "spec.workflow.outputs[0].name"];
            for (plan, field) in plans.iter().zip(fields) {
                let error = check(plan).expect_err(name);
                assert_eq!(error.context["field"], format!("jobs[0].{field}"), "{name:?}: {error}");
            }
            assert_eq!(check(&plans[3]).expect_err(name).context["field"], "jobs[1].spec.workflow.inputs[0].name");
        }
        let mut cells = plan();
        cells.jobs[0] = job("_build-os-mac_os-py-3.11", &[]);
        check(&cells).expect("the name of a cell");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        type Break = fn(&mut RunPlan);
        let cases: [(Break, &str); 23] = [
            (|plan| plan.name.clear(), "name"),
            (|plan| plan.name = "a\nb".to_owned(), "name"),
            (|plan| plan.timeout = Some(Span::default()), "timeout"),
            (|plan| plan.jobs.clear(), "jobs"),
            (|plan| plan.jobs[1] = job("a", &[]), "jobs[1].name"),
            (|plan| plan.jobs[1] = job(&"x".repeat(257), &[]), "jobs[1].name"),
            (|plan| plan.jobs[1].needs = vec![1], "jobs[1].needs"),
            (|plan| plan.jobs[2].needs = vec![1, 0], "jobs[2].needs"),
            (|plan| plan.jobs[2].needs = vec![0, 0], "jobs[2].needs"),
            (|plan| plan.jobs[2].needs = vec![u32::MAX], "jobs[2].needs"),
            (|plan| plan.jobs[0].condition = Condition::Expression("1 +".to_owned()), "jobs[0].if"),
            (|plan| plan.jobs[0].spec.steps.clear(), "jobs[0].spec.steps"),
            (|plan| plan.jobs[0].spec.idempotency_key = Some("k".to_owned()), "jobs[0].spec.idempotency_key"),
            (|plan| plan.jobs[0].spec.run_at = Some(executr_spec::Timestamp(1)), "jobs[0].spec.run_at"),
            (|plan| plan.jobs[0].spec.workflow = None, "jobs[0].spec.workflow"),
            (|plan| workflow(&mut plan.jobs[0]).source = Some(Digest::of(b"other")), "jobs[0].spec.workflow.source"),
            (
                |plan| workflow(&mut plan.jobs[0]).env_source = Some(Digest::of(b"other")),
                "jobs[0].spec.workflow.env_source",
            ),
            (|plan| workflow(&mut plan.jobs[0]).name = "other".to_owned(), "jobs[0].spec.workflow.name"),
            (
                |plan| {
                    for job in &mut plan.jobs {
                        let output = ArtifactOutput { name: "out".to_owned(), path: "p".to_owned() };
                        workflow(job).outputs.push(output);
                    }
                },
                "jobs[1].spec.workflow.outputs[0].name",
            ),
            (
                |plan| {
                    hooks(&mut plan.jobs[0]);
                    workflow(&mut plan.jobs[0]).executor.name = "a\0".to_owned();
                },
                "jobs[0].spec.workflow.executor.name",
            ),
            (
                |plan| {
                    let (name, from, path) = (String::new(), "a".to_owned(), String::new());
                    workflow(&mut plan.jobs[1]).inputs.push(ArtifactInput { name, from, path });
                },
                "jobs[1].spec.workflow.inputs[0].name",
            ),
            (
                |plan| {
                    plan.jobs.iter_mut().for_each(hooks);
                    workflow(&mut plan.jobs[2]).executor.options = json!({"setup": "y"});
                },
                "jobs[2].spec",
            ),
            (
                |plan| {
                    plan.jobs.iter_mut().for_each(hooks);
                    plan.jobs[2].spec.labels.insert("gpu".to_owned(), "yes".to_owned());
                },
                "jobs[2].spec",
            ),
        ];
        for (break_it, field) in cases {
            let mut plan = plan();
            break_it(&mut plan);
            let error = check(&plan).expect_err(field);
            assert_eq!(error.context["field"], field, "{error}");
        }
    }
}
