//! The durable queue: one folder per database behind one contract, and an in-memory model.
