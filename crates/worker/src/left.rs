//! What dead workers left on this machine.

use std::path::Path;

use executr_executors::contract::ExecutorError;
use executr_executors::local::LocalExecutor;
use executr_executors::oci::{ContainerError, OciHost, OciHostOptions};

/// Removes the containers that dead processes left in this machine's engine; how many those were.
///
/// # Errors
/// When there is no engine, or it can't say what there is.
pub async fn remove_left_containers(options: OciHostOptions) -> Result<usize, ContainerError> {
    OciHost::new(options).clean().await
}

/// Removes the directories that dead workers left in a directory for jobs, if it is there.
///
/// # Errors
/// When the directory can't be used.
pub fn remove_left_directories(work_dir: &Path) -> Result<(), ExecutorError> {
    LocalExecutor::clean(work_dir)
}
