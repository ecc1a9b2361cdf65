//! `executr doctor`

use std::io;
use std::path::PathBuf;

use executr_agent::cgroup::{Hierarchies, can_have_group};
use executr_executors::doctor::diagnose;
use executr_executors::doctor::probe::{Surroundings, probe};

use crate::arguments::{DoctorArgs, OutputForm};
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::host;
use crate::services::{RunDirectory, agent, data_directory, worker};
use crate::show::{Ink, write_json, write_report};

pub(super) async fn doctor(arguments: DoctorArgs) -> Result<Exit> {
    let data = data_directory(arguments.data_dir)?;
    let directory = RunDirectory::beside(&data.join("runs"));
    let scratch = match &directory {
        Ok(directory) => Ok(directory.path().to_owned()),
        Err(Failure::Told { problem, .. }) => Err(problem.clone()),
        Err(Failure::OutputClosed) => Err("nobody reads the output".to_owned()),
    };
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let surroundings = Surroundings {
        agent: agent::program(&data),
        direct: worker::containers(&data, &[]).direct,
        data,
        scratch,
        keeper: worker::keeper(),
        group: can_have_group(&Hierarchies::discover()),
        path: variable("PATH").unwrap_or_default(),
        docker_host: host::engine_address(),
        sockets: host::engine_sockets(),
        containers_conf: variable("CONTAINERS_CONF").map(PathBuf::from),
    };
    let report = diagnose(&probe(&surroundings).await);
    drop(directory);
    let mut out = io::stdout().lock();
    match arguments.output {
        OutputForm::Json => write_json(&mut out, &report)?,
        OutputForm::Table => write_report(&mut out, &report, Ink::for_stdout())?,
    }
    Ok(if report.works() { Exit::SUCCESS } else { Exit::FAILURE })
}
