//! What expressions in a job's steps see.
//!
//! ```text
//! matrix.<dimension>            of the job's cell
//! needs.<name>.result|outputs   how the jobs it needs ended, and what they handed on
//! run.id, run.name, job.name
//! env.<NAME>                    declared variables, as far as they are known by then
//! steps.<name>.*                earlier steps: outcome, exit_code, outputs, stdout, stderr, changed_files
//! previous_step.*               the last of them that wasn't skipped
//! ```

use std::collections::BTreeMap;

use executr_api::{NeedResult, RunContext, StepOutcome};
use executr_expressions::{Context, Ended, Status, needs};
use executr_spec::JobSpec;
use serde_json::{Value, json};

/// What expressions see of a step that is over.
#[derive(Debug)]
pub(super) struct StepRecord {
    pub(super) name: String,
    pub(super) outcome: StepOutcome,
    pub(super) exit_code: Option<i32>,
    pub(super) outputs: BTreeMap<String, String>,
    /// `None` where no expression names it; likewise the next two.
    pub(super) stdout: Option<String>,
    pub(super) stderr: Option<String>,
    pub(super) changed_files: Option<Vec<String>>,
}

impl StepRecord {
    /// A step that wasn't run.
    pub(super) fn skipped(name: String) -> Self {
        Self {
            name,
            outcome: StepOutcome::Skipped,
            exit_code: None,
            outputs: BTreeMap::new(),
            stdout: None,
            stderr: None,
            changed_files: None,
        }
    }

    fn value(&self) -> Value {
        let outcome = match self.outcome {
            StepOutcome::Succeeded => "success",
            StepOutcome::Failed | StepOutcome::TimedOut => "failure",
            StepOutcome::Cancelled => "cancelled",
            StepOutcome::Skipped => "skipped",
        };
        let mut value = json!({
            "outcome": outcome,
            "exit_code": self.exit_code,
            "outputs": self.outputs,
            // Nothing was written by a step that didn't run.
            "stdout": self.stdout.as_deref().unwrap_or_default(),
            "stderr": self.stderr.as_deref().unwrap_or_default(),
        });
        value["changed_files"] = json!(self.changed_files.as_deref().unwrap_or_default());
        value
    }
}

/// What is known in a step of `spec`, after the steps in `records`.
pub(super) fn context(
    spec: &JobSpec,
    run: Option<&RunContext>,
    env: &BTreeMap<String, String>,
    records: &[StepRecord],
    status: Status,
) -> Context {
    let steps = records.iter().map(|record| (record.name.clone(), record.value())).collect();
    let previous = records.iter().rev().find(|record| record.outcome != StepOutcome::Skipped);
    let mut context = Context::new()
        .with_status(status)
        .with("env", json!(env))
        .with("steps", Value::Object(steps))
        .with("previous_step", previous.map_or_else(|| json!({}), StepRecord::value));
    if let Some(workflow) = &spec.workflow {
        context.set("matrix", json!(workflow.matrix));
        context.set("job", json!({ "name": workflow.name }));
        let id = run.map_or_else(String::new, |run| run.run.to_string());
        context.set("run", json!({ "id": id, "name": workflow.workflow }));
        let ended = |job: &str| {
            let need = run?.needs.get(job)?;
            Some(Ended { result: result(need.result), outputs: &need.outputs })
        };
        context.set("needs", needs(&workflow.needs, ended));
    }
    context
}

fn result(result: NeedResult) -> &'static str {
    match result {
        NeedResult::Success => "success",
        NeedResult::Failure => "failure",
        NeedResult::Cancelled => "cancelled",
        NeedResult::Skipped => "skipped",
    }
}

#[cfg(test)]
mod tests {
    use executr_api::Need;
    use executr_expressions::interpolate;
    use executr_spec::workflow::WorkflowJob;
    use executr_spec::{RunId, Step, StepCommand};

    use super::*;

    fn record(name: &str, outcome: StepOutcome) -> StepRecord {
        StepRecord {
            name: name.to_owned(),
            outcome,
            exit_code: Some(3),
            outputs: [("version".to_owned(), "2".to_owned())].into(),
            stdout: Some("said".to_owned()),
            stderr: None,
            changed_files: Some(vec!["a".to_owned()]),
        }
    }

    #[test]
    fn steps_are_seen_by_name_and_the_last_that_ran_as_the_previous_one() {
        let spec = JobSpec::new(vec![Step::new(StepCommand::Run("true".to_owned()))]);
        let records = [record("build", StepOutcome::TimedOut), record("test", StepOutcome::Skipped)];
        let env = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        let context = context(&spec, None, &env, &records, Status::GOOD);
        for (text, value) in [
            ("${{ steps.build.outcome }} ${{ steps.test.outcome }} ${{ env.A }}", "failure skipped 1"),
            ("${{ previous_step.outputs.version }}${{ previous_step.exit_code }}", "23"),
            ("${{ steps.build.stdout }}<${{ steps.build.stderr }}>", "said<>"),
            ("${{ join(previous_step.changed_files) }}", "a"),
        ] {
            assert_eq!(interpolate(text, &context).unwrap_or_else(|error| panic!("{text}: {error}")), value);
        }
        assert!(interpolate("${{ needs.a.result }}", &context).is_err());
    }

    #[test]
    fn needs_are_seen_by_their_names_in_the_file() {
        let need = |result, output: &str| Need { result, outputs: [(output.to_owned(), "x".to_owned())].into() };
        let needs = [("t-1", NeedResult::Success, "a"), ("t-2", NeedResult::Cancelled, "b")];
        let run = RunContext {
            run: RunId(uuid::Uuid::nil()),
            needs: needs.map(|(name, result, output)| (name.to_owned(), need(result, output))).into(),
            artifacts: vec![],
            workspace: None,
        };
        let mut spec = JobSpec::new(vec![Step::new(StepCommand::Run("true".to_owned()))]);
        spec.workflow = Some(Box::new(WorkflowJob {
            workflow: "ci".to_owned(),
            name: "j".to_owned(),
            needs: [("t".to_owned(), vec!["t-1".to_owned(), "t-2".to_owned()])].into(),
            ..WorkflowJob::default()
        }));
        let context = context(&spec, Some(&run), &BTreeMap::new(), &[], Status::GOOD);
        let text = "${{ needs.t.result }} ${{ needs.t.outputs.a }} ${{ run.name }} ${{ job.name }} ${{ run.id }}";
        let expected = format!("cancelled x ci j {}", run.run);
        assert_eq!(interpolate(text, &context).unwrap_or_else(|error| panic!("{error}")), expected);
    }
}
