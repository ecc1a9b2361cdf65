//! How the values of runs stand in columns.

use executr_api::RunState;

use crate::Gate;
use crate::lifecycle::graph::Before;
use crate::postgres::coding::damaged;
use crate::postgres::fault::Fault;

/// The number of a gate.
pub(super) fn gate_code(gate: Gate) -> i16 {
    match gate {
        Gate::Success => 0,
        Gate::Failure => 1,
        Gate::Always => 2,
        Gate::Cancelled => 3,
        Gate::AskAfterSuccess => 4,
        Gate::Ask => 5,
        Gate::AskUnlessCancelled => 6,
    }
}

/// The gate with this number.
pub(super) fn gate(code: i16) -> Result<Gate, Fault> {
    let found = usize::try_from(code).ok().and_then(|index| Gate::ALL.get(index).copied());
    found.ok_or_else(|| damaged(format!("a job's gate {code}")))
}

/// The number of a run's state: below 2 it is not final, and 0 is running. SQL relies on it.
pub(super) fn run_state_code(state: RunState) -> i16 {
    match state {
        RunState::Running => 0,
        RunState::Cancelling => 1,
        RunState::Completed => 2,
        RunState::Failed => 3,
        RunState::Cancelled => 4,
    }
}

/// The state with this number.
pub(super) fn run_state(code: i16) -> Result<RunState, Fault> {
    let found = usize::try_from(code).ok().and_then(|index| RunState::ALL.get(index).copied());
    found.ok_or_else(|| damaged(format!("a run's state {code}")))
}

/// The number of what happened before a job.
pub(super) fn before_code(before: Before) -> i16 {
    i16::from(before.failed) | i16::from(before.cancelled) << 1
}

/// What happened before a job, by its number.
pub(super) fn before(code: i16) -> Before {
    Before { failed: code & 1 != 0, cancelled: code & 2 != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_read_back() {
        for value in Gate::ALL {
            assert_eq!(gate(gate_code(value)).expect("a gate"), value);
        }
        for value in RunState::ALL {
            assert_eq!(run_state(run_state_code(value)).expect("a state"), value);
            assert_eq!(run_state_code(value) >= 2, value.is_final(), "SQL relies on it");
        }
        for (failed, cancelled) in [(false, false), (true, false), (false, true), (true, true)] {
            let value = Before { failed, cancelled };
            assert_eq!(before(before_code(value)), value);
        }
        assert!(gate(7).is_err() && run_state(5).is_err());
    }
}
