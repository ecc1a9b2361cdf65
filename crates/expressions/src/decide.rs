//! Whether a job or a step runs.

use executr_spec::Condition;
use executr_spec::expression::Expression;

use crate::context::Context;
use crate::error::EvaluationError;
use crate::evaluate::{Evaluated, evaluate_early, truth};

/// What a condition comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It runs.
    Run,
    /// It is skipped.
    Skip,
    /// This script decides: exit code 0 runs, 1 skips, any other fails.
    Script(&'a str),
}

/// What a condition comes to. The context has a status.
///
/// # Errors
/// When its expression comes to nothing, to something that is neither true nor false, or isn't known yet.
pub fn decide<'a>(condition: &'a Condition, context: &Context) -> Result<Verdict<'a>, EvaluationError> {
    early(condition, context)?.map_err(EvaluationError::NotYet)
}

/// What a condition comes to, if that can be said already. It will come to the same, also to the same error, when more is
/// known.
///
/// # Errors
/// As [`decide`], but for what isn't known yet.
pub fn decide_early<'a>(condition: &'a Condition, context: &Context) -> Result<Option<Verdict<'a>>, EvaluationError> {
    Ok(early(condition, context)?.ok())
}

/// The verdict, or what it waits for.
fn early<'a>(condition: &'a Condition, context: &Context) -> Result<Result<Verdict<'a>, String>, EvaluationError> {
    let status = |of: fn(crate::Status) -> bool, name: &str| context.status().map(of).ok_or_else(|| name.to_owned());
    let success = || status(|status| status.success, "success()");
    let verdict = |runs| if runs { Verdict::Run } else { Verdict::Skip };
    Ok(match condition {
        Condition::Success => success().map(verdict),
        Condition::Failure => status(|status| status.failure, "failure()").map(verdict),
        Condition::Cancelled => status(|status| status.cancelled, "cancelled()").map(verdict),
        Condition::Always => Ok(Verdict::Run),
        Condition::Shell(script) => {
            success().map(|success| if success { Verdict::Script(script) } else { Verdict::Skip })
        }
        Condition::Expression(text) => {
            let expression = Expression::parse(text)?;
            if expression.status_functions().is_empty() {
                match success() {
                    Ok(true) => {}
                    Ok(false) => return Ok(Ok(Verdict::Skip)),
                    Err(name) => return Ok(Err(name)),
                }
            }
            match evaluate_early(&expression, context)? {
                Evaluated::Known(value) => Ok(verdict(truth(&value)?)),
                Evaluated::NotYet(name) => Err(name),
            }
        }
    })
}
