//! What is said when a tree doesn't get where it should be.

use executr_api::ApiError;
use executr_tree::wire::TransferError;

use crate::errors::Failure;
use crate::exit::Exit;

/// `told` speaks for the coordinator.
pub(super) fn failed(error: TransferError, told: &(dyn Fn(ApiError) -> Failure + Sync)) -> Failure {
    match error {
        TransferError::Api(error) => told(error),
        error => Failure::new(Exit::FAILURE, error),
    }
}
