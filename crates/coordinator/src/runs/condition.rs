//! Deciding the conditions that a store can't.

use executr_expressions::{Context, Ended, Status, Verdict, decide, needs};
use executr_spec::{Condition, JobSpec};
use executr_store::{GateVerdict, Question};

/// What becomes of a job with this condition.
pub(super) fn verdict(condition: &Condition, question: &Question) -> GateVerdict {
    let failed = |problem: &dyn std::fmt::Display| {
        // No database takes a text with NUL, which a condition may have in quotes.
        GateVerdict::Fail(format!("its condition `{condition}` can't be decided: {problem}").replace('\0', "\u{fffd}"))
    };
    let spec = match question.spec.read() {
        Ok(spec) => spec,
        Err(error) => return failed(&format_args!("the job can't be read by this version: {error}")),
    };
    match decide(condition, &context(&spec, question)) {
        // A script is looked at by the worker.
        Ok(Verdict::Run | Verdict::Script(_)) => GateVerdict::Run,
        Ok(Verdict::Skip) => GateVerdict::Skip,
        Err(problem) => failed(&problem),
    }
}

/// What is known of a job when all its needs are final.
fn context(spec: &JobSpec, question: &Question) -> Context {
    let Question { run, failed_before: failure, cancelled_before, run_cancelling: cancelled, .. } = *question;
    let ended = |job: &str| {
        let need = question.needs.get(job)?;
        Some(Ended { result: need.result.as_str(), outputs: &need.outputs })
    };
    let names = spec.workflow.as_ref().map(|workflow| &workflow.needs);
    let context = Context::of_job(spec, &run).with_status(Status {
        success: !(failure || cancelled_before || cancelled),
        failure,
        cancelled,
    });
    match names {
        Some(names) => context.with("needs", needs(names, ended)),
        None => context,
    }
}
