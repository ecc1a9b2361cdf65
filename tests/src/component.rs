//! What happens when a component a test needs is not on this machine.
//!
//! A developer without PostgreSQL still runs all other tests; the automatic check has everything installed, so
//! there a missing component is a failure and not a gap nobody notices.

/// Says in one line that a test is skipped because `component` is missing, and how to get it.
///
/// # Panics
///
/// Under `CI=true`: there every component has to be present.
#[track_caller]
pub fn missing(component: &str, reason: &str) {
    let remedy = "run scripts/setup to install what the tests need";
    if std::env::var_os("CI").is_some_and(|value| value == "true") {
        panic!("{component} is needed under CI=true: {reason}; {remedy}");
    }
    absent(component, &format!("{reason}; {remedy}"));
}

/// Says in one line that `component`, which is nowhere required, is not here, so that a part of a test is skipped.
#[expect(clippy::print_stderr, reason = "this line is all a skipped part leaves behind")]
pub fn absent(component: &str, reason: &str) {
    eprintln!("skipped: no {component} here ({reason})");
}
