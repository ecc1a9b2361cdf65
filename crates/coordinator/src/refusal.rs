//! How the store's errors, and the coordinator's own, become the API's.

use executr_api::{ApiError, ErrorCode};
use executr_spec::{JobId, SpecError};
use executr_store::StoreError;

/// The store's error as callers see it. What went wrong inside is logged here, once.
pub(crate) fn store(error: StoreError) -> ApiError {
    match error {
        StoreError::TooManyClasses { index, ref queue } => {
            ApiError::new(ErrorCode::BadRequest, error.to_string()).with("index", index).with("queue", queue)
        }
        StoreError::UploadGap { .. } => ApiError::new(ErrorCode::Conflict, error.to_string()),
        StoreError::Unavailable(_) => {
            tracing::warn!(%error, "the store is not available");
            ApiError::new(ErrorCode::Unavailable, error.to_string())
        }
        StoreError::Locked { .. } | StoreError::TooNew { .. } | StoreError::Config(_) => {
            ApiError::new(ErrorCode::Unavailable, error.to_string())
        }
        StoreError::Database(_) | StoreError::File { .. } => {
            tracing::error!(%error, "the store failed");
            ApiError::new(ErrorCode::Internal, error.to_string())
        }
    }
}

/// A job that can't be accepted.
pub(crate) fn spec(error: SpecError) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, error.to_string()).with("field", error.field)
}

/// There is no such job.
pub(crate) fn no_job(id: JobId) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("there is no job {id}; it may have been deleted after its retention"))
        .with("job_id", id)
}

/// The process stops.
pub(crate) fn stopping() -> ApiError {
    ApiError::new(ErrorCode::Unavailable, "the server is stopping; try again in a moment")
}

/// The request can't be allowed as it is.
pub(crate) fn bad(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, message)
}

/// A task of ours died while others waited for its answer.
pub(crate) fn broken() -> ApiError {
    ApiError::new(ErrorCode::Internal, "the coordinator failed while it worked on this; see its log and try again")
}

/// A stored job that this program can't read.
pub(crate) fn unreadable(id: JobId, error: &serde_json::Error) -> ApiError {
    ApiError::new(
        ErrorCode::Internal,
        format!("job {id} was stored in a form that this version doesn't read: {error}; upgrade this server"),
    )
    .with("job_id", id)
}
