//! Named points at which tests make the program die.
//!
//! A point costs one relaxed load when none is armed. The cli arms them from its environment; libraries only name them.
//! The one process-wide state in the libraries: a crash is a matter of the whole process.

use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;

static ARMED: AtomicBool = AtomicBool::new(false);
static POINT: Mutex<Option<Failpoint>> = Mutex::new(None);

/// Every point there is, in the order a job meets them. A test dies at each.
pub const POINTS: [&str; 10] = [
    "submit.before-commit",
    "submit.after-commit",
    "claim.before-commit",
    "claim.after-commit",
    "finish.before-commit",
    "finish.after-commit",
    "cancel.after-commit",
    "output.after-append",
    "renew.after-commit",
    "sweep.after-commit",
];

/// A point to die at, and on which passing: `submit.after-commit` or `submit.after-commit@3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failpoint {
    name: &'static str,
    passings: u32,
}

/// A text that names no point.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{text}` is not a failpoint; write NAME or NAME@COUNT with one of: {}", POINTS.join(", "))]
pub struct FailpointError {
    text: String,
}

impl FromStr for Failpoint {
    type Err = FailpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || FailpointError { text: text.to_owned() };
        let (name, count) = text.split_once('@').unwrap_or((text, "1"));
        let name = POINTS.into_iter().find(|point| *point == name).ok_or_else(wrong)?;
        let passings = count.parse().ok().filter(|count| *count > 0).ok_or_else(wrong)?;
        Ok(Self { name, passings })
    }
}

/// Lets the process abort when it passes `failpoint` for the given time.
pub fn arm(failpoint: Failpoint) {
    if let Ok(mut point) = POINT.lock() {
        *point = Some(failpoint);
        ARMED.store(true, Ordering::Relaxed);
    }
}

/// Passes the point `name`: aborts the process if it is armed and this is the passing it is armed for.
#[inline]
pub fn pass(name: &'static str) {
    if ARMED.load(Ordering::Relaxed) {
        pass_armed(name);
    }
}

#[cold]
fn pass_armed(name: &'static str) {
    debug_assert!(POINTS.contains(&name), "{name} is missing in POINTS");
    let Ok(mut point) = POINT.lock() else { return };
    if let Some(armed) = point.as_mut().filter(|armed| armed.name == name) {
        armed.passings -= 1;
        if armed.passings == 0 {
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_points_that_exist_can_be_armed() {
        assert_eq!("claim.after-commit@3".parse(), Ok(Failpoint { name: "claim.after-commit", passings: 3 }));
        for text in ["", "claim", "claim.after-commit@0", "claim.after-commit@x"] {
            assert!(text.parse::<Failpoint>().is_err(), "{text}");
        }
    }
}
