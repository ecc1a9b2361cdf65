//! The small single-threaded program inside a sandbox that spawns, streams and ends processes.
