//! Takes leases through the worker API, near or far, and runs them with the engine.
