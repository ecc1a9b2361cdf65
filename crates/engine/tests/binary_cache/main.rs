//! The binary cache against a web server that behaves as the test says.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod fetching;
mod keeping;
mod web;
