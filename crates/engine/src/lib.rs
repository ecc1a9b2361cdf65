//! How one leased job runs: sandbox, steps, limits, output, result.
