//! Runs of workflows.

mod handing_on;
mod questions;
mod repeating;
mod running;
mod storms;
mod taking_in;
mod workspaces;
