//! `executr rerun`

use executr_api::{RerunScope, RunClient as _};

use super::{here, there};
use crate::arguments::{OutputForm, RerunArgs};
use crate::connection::connect;
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::services::{KeptRuns, data_directory};

pub(in crate::commands) async fn rerun(arguments: RerunArgs) -> Result<Exit> {
    let scope = if arguments.failed { RerunScope::Failed } else { RerunScope::All };
    let data = data_directory(arguments.data_dir.clone())?;
    if arguments.here || KeptRuns::of(&data).has(arguments.id) {
        return here::rerun(arguments.id, scope, arguments.format, &data).await;
    }
    let client = connect(&arguments.connection)?;
    let told = |error| Failure::api(&error, Some(client.server()));
    let view = client.rerun(arguments.id, scope).await.map_err(told)?;
    if arguments.wait {
        let jobs = usize::try_from(view.jobs.values().sum::<u64>()).unwrap_or(usize::MAX);
        return there::wait(&client, view.id, &view.name, jobs, arguments.format, OutputForm::Table).await;
    }
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{}", view.id)?;
    Ok(Exit::SUCCESS)
}
