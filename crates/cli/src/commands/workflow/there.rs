//! `executr submit FILE`: the run goes on at the server, whatever becomes of this process.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;

use executr_api::{RunClient as _, RunSubmission};
use executr_client::HttpClient;
use executr_spec::RunId;

use super::{load, picture, source};
use crate::arguments::{OutputForm, WorkflowArgs};
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::show::run::FormatName;
use crate::show::write_json;

/// How the answer is given.
pub(in crate::commands) struct Answer {
    /// Show the run until its end.
    pub(in crate::commands) wait: bool,
    /// As a table or for programs.
    pub(in crate::commands) output: OutputForm,
    /// See `Submission`.
    pub(in crate::commands) idempotency_key: Option<String>,
}

/// Submits a workflow.
pub(in crate::commands) async fn submit(
    client: &HttpClient,
    file: &Path,
    chosen: &[String],
    workflow: &WorkflowArgs,
    env: &[(String, String)],
    data: &Path,
    answer: Answer,
) -> Result<Exit> {
    let told = |error| Failure::api(&error, Some(client.server()));
    let loaded = load::load(file, chosen, workflow, env)?;
    if workflow.dry_run {
        return load::show_dry_run(&loaded);
    }
    let plan = source::with_source(loaded, client.clone(), data, true, &told).await?;
    let submission = RunSubmission { plan, idempotency_key: answer.idempotency_key };
    let view = client.submit_run(submission).await.map_err(told)?;
    if answer.wait {
        let jobs = usize::try_from(view.jobs.values().sum::<u64>()).unwrap_or(usize::MAX);
        return wait(client, view.id, &view.name, jobs, workflow.format, answer.output).await;
    }
    match answer.output {
        OutputForm::Json => write_json(&mut io::stdout().lock(), &view)?,
        OutputForm::Table => {
            writeln!(io::stdout(), "{}", view.id)?;
            if io::stdout().is_terminal() {
                drop(writeln!(io::stderr(), "how it goes on: executr runs -f {}", view.id));
            }
        }
    }
    Ok(Exit::SUCCESS)
}

/// Shows a run of a server to its end.
pub(super) async fn wait(
    client: &HttpClient,
    run: RunId,
    name: &str,
    jobs: usize,
    format: Option<FormatName>,
    output: OutputForm,
) -> Result<Exit> {
    let told = |error| Failure::api(&error, Some(client.server()));
    let quiet = output == OutputForm::Json || format.is_some_and(|format| format != FormatName::Simple);
    let show = picture::choose(format, name, jobs);
    let view = tokio::select! {
        view = picture::follow(client, run, 0, show, quiet, &told) => view?,
        _ = tokio::signal::ctrl_c() => {
            drop(writeln!(io::stderr(), "\nthe run goes on: executr runs -f {run}, or executr runs --cancel {run}"));
            return Ok(Exit::CANCELLED);
        }
    };
    if output == OutputForm::Json {
        write_json(&mut io::stdout().lock(), &view)?;
    }
    Ok(picture::exit(view.state))
}
