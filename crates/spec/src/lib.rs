//! What jobs, steps and their limits are: types, parsing and validation. Pure: no I/O, no clock.
