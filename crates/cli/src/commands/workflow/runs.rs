//! `executr runs`

use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use executr_api::{RunCancel, RunClient as _, RunJobView, RunQuery, RunView};
use executr_coordinator::{Coordinator, Unobserved};
use executr_spec::{RunId, Tenant};

use super::{there, watch};
use crate::arguments::{OutputForm, RunsArgs};
use crate::connection::connect;
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::services::{KeptRuns, data_directory, open_run, rules_here};
use crate::show::run::{run_lines, runs_table};
use crate::show::{now, write_json};

pub(in crate::commands) async fn runs(arguments: RunsArgs) -> Result<Exit> {
    let data = data_directory(arguments.data_dir.clone())?;
    let kept = KeptRuns::of(&data);
    match arguments.id {
        Some(run) if arguments.here || kept.has(run) => one_here(&data, &kept, run, &arguments).await,
        Some(run) => one_there(run, &arguments).await,
        None if arguments.here => list_here(&kept, &arguments),
        None => list_there(&arguments).await,
    }
}

fn list_here(kept: &KeptRuns, arguments: &RunsArgs) -> Result<Exit> {
    let mut views = Vec::new();
    for mut kept in kept.list() {
        for view in kept.note.runs.drain(..).rev() {
            if arguments.name.as_ref().is_none_or(|name| *name == view.name) {
                views.push((view, kept.is_open));
            }
        }
    }
    views.truncate(arguments.limit as usize);
    if arguments.output == OutputForm::Json {
        let views: Vec<RunView> = views.into_iter().map(|(view, _)| view).collect();
        write_json(&mut io::stdout().lock(), &views)?;
        return Ok(Exit::SUCCESS);
    }
    let died = |view: &RunView, is_open: bool| !is_open && !view.state.is_final();
    let rows = views.iter().map(|(view, is_open)| (view, died(view, *is_open)));
    runs_table(rows, now()).print()?;
    if views.iter().any(|(view, is_open)| died(view, *is_open)) {
        drop(writeln!(io::stderr(), "what died can be gone on with: executr run FILE --resume"));
    }
    Ok(Exit::SUCCESS)
}

async fn list_there(arguments: &RunsArgs) -> Result<Exit> {
    let client = connect(&arguments.connection)?;
    let query = RunQuery { name: arguments.name.clone(), limit: Some(arguments.limit), ..RunQuery::default() };
    let views = client.runs(query).await.map_err(|error| {
        Failure::api(&error, Some(client.server())).remedy("runs of `executr run` are shown by `executr runs --here`")
    })?;
    match arguments.output {
        OutputForm::Json => write_json(&mut io::stdout().lock(), &views)?,
        OutputForm::Table => runs_table(views.iter().map(|view| (view, false)), now()).print()?,
    }
    Ok(Exit::SUCCESS)
}

async fn one_there(run: RunId, arguments: &RunsArgs) -> Result<Exit> {
    let client = connect(&arguments.connection)?;
    let told = |error| Failure::api(&error, Some(client.server()));
    let how = if arguments.now { RunCancel::AtOnce } else { RunCancel::InOrder };
    let view =
        if arguments.cancel { client.cancel_run(run, how).await } else { client.run(run).await }.map_err(told)?;
    if arguments.follow {
        let jobs = usize::try_from(view.jobs.values().sum::<u64>()).unwrap_or(usize::MAX);
        return there::wait(&client, run, &view.name, jobs, arguments.format, arguments.output).await;
    }
    let jobs = watch::jobs(&client, run).await.map_err(told)?;
    show(&view, false, &jobs, arguments.output)
}

/// Reads a run's own database. One that is open elsewhere can't be read, and is told by what was noted when it began.
async fn one_here(data: &Path, kept: &KeptRuns, run: RunId, arguments: &RunsArgs) -> Result<Exit> {
    if arguments.cancel || arguments.follow {
        return Err(Failure::usage("a run on this machine is followed and cancelled where it was started: by Ctrl-C"));
    }
    if let Some(view) = kept.open_elsewhere(run) {
        show(&view, false, &[], arguments.output)?;
        drop(writeln!(
            io::stderr(),
            "another process is at it; this is how it stood when that began, and its jobs are known afterwards"
        ));
        return Ok(Exit::SUCCESS);
    }
    let (directory, note) = kept.open(run)?;
    let store = open_run(data, directory.path()).await?;
    let told = |error| Failure::api(&error, None);
    let coordinator = Coordinator::start(store, rules_here(), Arc::new(Unobserved)).await.map_err(told)?;
    let client = coordinator.client(Tenant::default());
    let view = client.run(run).await.map_err(told)?;
    let jobs = watch::jobs(&client, run).await.map_err(told)?;
    let died = !view.state.is_final();
    show(&view, died, &jobs, arguments.output)?;
    if died {
        drop(writeln!(io::stderr(), "go on with it: executr run {} --resume={run}", note.file.display()));
    }
    Ok(Exit::SUCCESS)
}

fn show(view: &RunView, died: bool, jobs: &[RunJobView], form: OutputForm) -> Result<Exit> {
    match form {
        OutputForm::Json => {
            let whole = serde_json::json!({ "run": view, "jobs": jobs });
            write_json(&mut io::stdout().lock(), &whole)?;
        }
        OutputForm::Table => run_lines(view, died, jobs, now())?,
    }
    Ok(Exit::SUCCESS)
}
