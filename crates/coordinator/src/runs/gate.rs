//! Which conditions a store can decide.

use executr_spec::Condition;
use executr_spec::expression::{Expression, Function, Operator, Term};
use executr_store::Gate;

/// When a job with this condition goes on, as far as a store can tell.
pub(super) fn gate(condition: &Condition) -> Gate {
    match condition {
        // A script is the attempt's first act, and is looked at only when `success()` holds.
        Condition::Success | Condition::Shell(_) => Gate::Success,
        Condition::Failure => Gate::Failure,
        Condition::Always => Gate::Always,
        Condition::Cancelled => Gate::Cancelled,
        Condition::Expression(text) => match Expression::parse(text) {
            Ok(expression) => gate_of(&expression),
            // What can't be read fails the job when it is asked about; plans with such are refused.
            Err(_) => Gate::Ask,
        },
    }
}

/// Only who calls `always()` or `cancelled()` outlives a cancel, as with these functions alone.
fn gate_of(expression: &Expression) -> Gate {
    match expression.status_functions() {
        [] => Gate::AskAfterSuccess,
        [Function::Success] if needs_success(expression.term()) => Gate::AskAfterSuccess,
        called if called.iter().any(|function| matches!(function, Function::Always | Function::Cancelled)) => Gate::Ask,
        _ => Gate::AskUnlessCancelled,
    }
}

/// Whether it is false wherever `success()` is: `success() && …`
fn needs_success(term: &Term) -> bool {
    match term {
        Term::Call(Function::Success, _) => true,
        Term::Binary(Operator::And, left, right) => needs_success(left) || needs_success(right),
        _ => false,
    }
}

/// Looks whether a condition can be read at all.
pub(super) fn check(condition: &Condition) -> Result<(), String> {
    match condition {
        Condition::Expression(text) => Expression::parse(text).map(drop).map_err(|error| error.to_string()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_decides_what_is_built_in_and_asks_about_expressions() {
        for (text, expected) in [
            ("success()", Gate::Success),
            ("failure()", Gate::Failure),
            ("always()", Gate::Always),
            ("cancelled()", Gate::Cancelled),
            ("test -f Makefile", Gate::Success),
            ("${{ matrix.os == 'linux' }}", Gate::AskAfterSuccess),
            ("${{ success() && matrix.os == 'linux' }}", Gate::AskAfterSuccess),
            ("${{ matrix.os == 'linux' && (matrix.x && success()) }}", Gate::AskAfterSuccess),
            ("${{ success() || matrix.os == 'linux' }}", Gate::AskUnlessCancelled),
            ("${{ !success() }}", Gate::AskUnlessCancelled),
            ("${{ success() || failure() }}", Gate::AskUnlessCancelled),
            ("${{ failure() && matrix.os == 'linux' }}", Gate::AskUnlessCancelled),
            ("${{ failure() && !cancelled() }}", Gate::Ask),
            ("${{ always() && matrix.os == 'linux' }}", Gate::Ask),
            ("${{ !cancelled() }}", Gate::Ask),
        ] {
            assert_eq!(gate(&Condition::parse(text)), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_expression_is_told() {
        check(&Condition::parse("${{ matrix.os == 'linux' }}")).expect("an expression");
        check(&Condition::parse("${{ matrix.os == }}")).expect_err("half a comparison");
    }
}
