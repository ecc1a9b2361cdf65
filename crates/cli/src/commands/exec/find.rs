//! Which job is meant, and where it is: in a run of this machine, in a directory that it left, or at a server.

use std::path::PathBuf;

use executr_api::console::ConsoleLine;
use executr_api::{ApiError, Client as _, ErrorCode, JobQuery, JobStatus, RunClient as _, RunQuery};
use executr_client::HttpClient;
use executr_spec::{JobId, RunId};

use super::kept;
use crate::arguments::ExecArgs;
use crate::connection::connect;
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::services::{KeptNote, KeptRuns, call, data_directory, is_beginning};

/// How many jobs and runs of a server are looked through for the beginning of an id, or a name.
const LOOKED_THROUGH: u32 = 1_000;

/// Where a command can run.
pub(super) enum Found {
    /// In a sandbox at the other end of this.
    Line(ConsoleLine),
    /// In a directory of this machine.
    Kept(PathBuf),
}

/// Finds what the words mean: on this machine first, then at the server.
pub(super) async fn find(arguments: &ExecArgs) -> Result<Found> {
    let (run, job) = match &arguments.target[..] {
        [job] => (None, job.as_str()),
        [run, job] => (Some(run.as_str()), job.as_str()),
        _ => return Err(Failure::usage("name one job, or a run and a job of it")),
    };
    let data = data_directory(arguments.data_dir.clone())?;
    let mut runs = KeptRuns::of(&data).list();
    if let Some(run) = run {
        runs.retain(|kept| kept.note.runs.iter().any(|view| is_meant(run, &view.id.to_string())));
        if runs.len() > 1 {
            return Err(Failure::usage(format!(
                "`{run}` is the beginning of {} runs' ids; give more of it",
                runs.len()
            )));
        }
    }
    if let Some(found) = find_here(&runs, job).await? {
        return Ok(found);
    }
    if arguments.here || run.is_some() && !runs.is_empty() {
        return Err(nowhere(job));
    }
    find_there(arguments, run, job).await
}

fn is_meant(word: &str, id: &str) -> bool {
    word == id || is_beginning(word, id)
}

fn nowhere(job: &str) -> Failure {
    Failure::new(Exit::NOT_FOUND, format!("no job `{job}` runs on this machine, and none left its directory"))
        .remedy("`executr runs --here` shows the runs there are; `executr run FILE --keep` leaves directories")
}

async fn find_here(runs: &[KeptNote], job: &str) -> Result<Option<Found>> {
    let told = |error: ApiError| Failure::api(&error, None);
    let mut calls = Vec::new();
    for kept in runs.iter().filter(|kept| kept.is_open) {
        match call(kept.path(), job).await {
            Ok(Some(call)) => calls.push((call, kept)),
            Ok(None) => {}
            Err(error) if error.code == ErrorCode::NotFound => {}
            Err(error) => return Err(told(error)),
        }
    }
    // One that ended is meant only when none is still there.
    if calls.iter().any(|(call, _)| !call.meant.state.is_final()) {
        calls.retain(|(call, _)| !call.meant.state.is_final());
    }
    if calls.len() > 1 {
        let ids: Vec<String> = calls.iter().filter_map(|(_, kept)| Some(newest(kept)?.to_string())).collect();
        return Err(Failure::usage(format!("{} runs here have a job `{job}`", calls.len()))
            .remedy(format!("say which run: executr exec RUN {job}, where RUN is one of {}", ids.join(", "))));
    }
    if let Some((call, kept)) = calls.pop() {
        let name = call.meant.name.clone();
        if call.meant.state.is_final()
            && let Some(directory) = kept::directory(kept.path(), &name)
        {
            return Ok(Some(Found::Kept(directory)));
        }
        return call.open().await.map(|line| Some(Found::Line(line))).map_err(told);
    }
    Ok(runs.iter().find_map(|kept| kept::directory(kept.path(), job)).map(Found::Kept))
}

fn newest(kept: &KeptNote) -> Option<RunId> {
    kept.note.runs.last().map(|view| view.id)
}

async fn find_there(arguments: &ExecArgs, run: Option<&str>, job: &str) -> Result<Found> {
    let client = connect(&arguments.connection)?;
    let told = |error: ApiError| Failure::api(&error, Some(client.server()));
    let id = match (run, job.parse::<JobId>()) {
        (Some(run), _) => {
            let run = run_there(&client, run).await.map_err(told)?;
            in_run(&client, run, job).await.map_err(told)?
        }
        (None, Ok(id)) => Some(id),
        (None, Err(_)) => running_there(&client, job).await.map_err(|error| {
            // Whoever has no server meant a run of this machine.
            if error.code == ErrorCode::Unavailable { nowhere(job) } else { told(error) }
        })?,
    };
    let id = id.ok_or_else(|| {
        Failure::new(Exit::NOT_FOUND, format!("no job `{job}` runs, on this machine or at {}", client.server()))
            .remedy("`executr list --status running` and `executr runs --here` show what runs")
    })?;
    client.console(id).await.map(Found::Line).map_err(told)
}

/// The run of a server that is meant.
async fn run_there(client: &HttpClient, word: &str) -> std::result::Result<RunId, ApiError> {
    if let Ok(id) = word.parse() {
        return Ok(id);
    }
    let runs = client.runs(RunQuery { limit: Some(LOOKED_THROUGH), ..RunQuery::default() }).await?;
    let ids = runs.into_iter().map(|run| run.id).filter(|id| is_beginning(word, &id.to_string())).collect();
    one(word, "run", ids)?.ok_or_else(|| ApiError::new(ErrorCode::NotFound, format!("there is no run `{word}`")))
}

/// The job of a run that is meant.
async fn in_run(client: &HttpClient, run: RunId, job: &str) -> std::result::Result<Option<JobId>, ApiError> {
    let mut from = 0;
    loop {
        let page = client.run_jobs(run, from, None).await?;
        let Some(last) = page.last() else { return Ok(None) };
        from = last.index + 1;
        if let Some(found) = page.iter().find(|view| view.name == job || is_meant(job, &view.id.to_string())) {
            return Ok(Some(found.id));
        }
    }
}

/// The running job of a server whose id begins so, or that is called so in its run.
async fn running_there(client: &HttpClient, job: &str) -> std::result::Result<Option<JobId>, ApiError> {
    let query = JobQuery { status: Some(JobStatus::Running), limit: Some(LOOKED_THROUGH), ..JobQuery::default() };
    let running = client.jobs(query).await?;
    let ids = running.iter().map(|job| job.id).filter(|id| is_beginning(job, &id.to_string())).collect();
    if let Some(id) = one(job, "job", ids)? {
        return Ok(Some(id));
    }
    let called =
        |view: &&executr_api::JobView| view.spec.workflow.as_ref().is_some_and(|workflow| workflow.name == job);
    one(job, "job", running.iter().filter(called).map(|job| job.id).collect())
}

/// The one there is.
fn one<T: Copy>(word: &str, what: &str, found: Vec<T>) -> std::result::Result<Option<T>, ApiError> {
    match found[..] {
        [] => Ok(None),
        [only] => Ok(Some(only)),
        _ => {
            let text = format!("`{word}` may be {} {what}s; give more of its id", found.len());
            Err(ApiError::new(ErrorCode::BadRequest, text))
        }
    }
}
