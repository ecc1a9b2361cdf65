//! `executr clean`

use std::io::{self, Write as _};

use executr_worker::{ContainerError, remove_left_containers, remove_left_directories};

use crate::arguments::CleanArgs;
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::host;
use crate::services::worker;

pub(super) async fn clean(arguments: &CleanArgs) -> Result<Exit> {
    let directory = &arguments.work_dir;
    remove_left_directories(directory).map_err(|error| Failure::new(Exit::FAILURE, error))?;
    let mut out = io::stdout().lock();
    writeln!(out, "{} holds nothing of dead executors", directory.display())?;
    match remove_left_containers(worker::containers(&host::state_directory()?)).await {
        Ok(removed) => writeln!(out, "{removed} containers of dead executors removed")?,
        // Where there is no engine there is no container.
        Err(ContainerError::NoEngine { .. } | ContainerError::NotBuilt) => {}
        Err(error) => return Err(Failure::new(Exit::FAILURE, error)),
    }
    Ok(Exit::SUCCESS)
}
