//! Runs: what the coordinator does with a workflow's graph, beyond its single jobs.
//!
//! The graph itself is the store's: which job's needs are final, what follows from a job's end, the numbers of events.
//! Here is what a store can't know or do:
//! - [`accept`]: a plan is checked and becomes rows; [`gate`] says which of its conditions a store can decide;
//! - [`questions`]: it is asked about the others, and [`condition`] decides them;
//! - [`progress`]: whoever a change concerns is told: workers, watchers, other coordinators;
//! - [`leases`]: what a lease on a job of a run brings besides the job; [`outline`] is the little of a plan that is needed
//!   for that while its run goes on;
//! - [`handed`]: what results hand on is checked before it is recorded; [`trees`] reads what artifacts and sources are
//!   made of;
//! - [`events`], [`view`], [`rerun`]: runs as users see and repeat them.

mod accept;
mod check;
mod condition;
mod events;
mod gate;
mod handed;
mod leases;
mod outline;
mod progress;
mod questions;
mod rerun;
mod trees;
mod view;

pub(crate) use events::follow;
pub(crate) use leases::{Contexts, may_be_of_a_run};
pub(crate) use outline::Outlines;
pub(crate) use questions::ask_now_and_then;

use executr_api::{ApiError, ErrorCode};
use executr_spec::RunId;
use executr_store::RunStore;

use crate::core::Core;

impl Core {
    /// Where runs are kept.
    pub(crate) fn runs_kept(&self) -> Result<&dyn RunStore, ApiError> {
        self.store.runs().ok_or_else(|| {
            let text =
                "this server's database can't keep workflows; use one that can, or run the file with `executr run`";
            ApiError::new(ErrorCode::BadRequest, text)
        })
    }
}

/// There is no such run.
fn no_run(id: RunId) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("there is no run {id}; it may have been deleted after its retention"))
        .with("run_id", id)
}
