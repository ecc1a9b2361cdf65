//! The brain: accepts jobs, decides what is ready, leases it, takes results.
