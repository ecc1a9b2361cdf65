//! The routes of the original's own executor: one lease per job, named by the job and the executor's id.

use executr_api::{ApiError, JobView};
use executr_spec::{JobId, WorkerId};

use crate::coordinator::{Coordinator, missing};

/// How the original's executor says that a job ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OriginalEnd {
    /// `PUT …/complete` rather than `…/fail`.
    pub succeeded: bool,
    /// All of standard output.
    pub stdout: String,
    /// All of standard error.
    pub stderr: String,
    /// The exit code.
    pub exit_code: Option<i32>,
    /// Why it failed.
    pub error_message: Option<String>,
}

impl Coordinator {
    /// Hands one job of the queue `default` with a single binary step to an executor of the original.
    ///
    /// # Errors
    /// `BadRequest` for an empty executor id.
    pub async fn claim_for_original(
        &self,
        _executor: WorkerId,
        _ip: Option<String>,
    ) -> Result<Option<JobView>, ApiError> {
        Err(missing())
    }

    /// Prolongs the lease of an executor of the original.
    ///
    /// # Errors
    /// `NotFound` when there is no such job or this executor doesn't run it.
    pub async fn heartbeat_original(&self, _job: JobId, _executor: &WorkerId) -> Result<(), ApiError> {
        Err(missing())
    }

    /// Takes the result of an executor of the original.
    ///
    /// # Errors
    /// `NotFound`; `BadRequest` when the job isn't running, or another executor has it.
    pub async fn finish_original(&self, _job: JobId, _executor: &WorkerId, _end: OriginalEnd) -> Result<(), ApiError> {
        Err(missing())
    }
}
