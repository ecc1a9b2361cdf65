//! The client and worker traits over HTTP; the Rust SDK.
