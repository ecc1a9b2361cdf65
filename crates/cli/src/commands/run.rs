//! `executr run`

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use executr_api::{ApiError, CancelWait, Client, JobStatus, OutputFollow, Submission};
use executr_coordinator::{Coordinator, Options, TenantClient, Unobserved};
use executr_spec::{Capability, JobId, Offers, Resources, Step, StepCommand, Tenant};
use executr_worker::{Cgroups, ShutdownHandle};

use super::follow::{Stop, show};
use super::submit::why_it_ended;
use super::workflow;
use crate::arguments::{RunArgs, StreamChoice};
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::services::{RunDirectory, Signals, data_directory, open_for_now, worker};

/// How long the end of a job may take whose output nobody reads.
const CANCEL: Duration = Duration::from_secs(30);

pub(super) async fn run(arguments: RunArgs) -> Result<Exit> {
    if arguments.place.is_wanted() {
        return workflow::single::run(arguments).await.map_err(Failure::beside_a_jobs);
    }
    run_here(arguments).await.map_err(Failure::beside_a_jobs)
}

/// `executr run FILE`
pub(super) async fn workflow(arguments: RunArgs) -> Result<Exit> {
    if arguments.place.is_wanted() {
        return Err(Failure::usage("--image, --files and --modified are for a command")
            .remedy("in a workflow they are written in its file, as `executor`, `files` and `modified`"));
    }
    if arguments.timeout.is_some() || arguments.resources.resources() != Resources::default() {
        return Err(Failure::usage("--timeout, --cpu, --memory and --pids are for a command")
            .remedy("in a workflow they are written in its file"));
    }
    let data = data_directory(arguments.data_dir.clone())?;
    let Some((file, chosen)) = arguments.command.split_first() else {
        return Err(Failure::usage("no file is named"));
    };
    workflow::here::run(file.as_ref(), chosen, &arguments.workflow, &arguments.here, &arguments.env, &data).await
}

async fn run_here(arguments: RunArgs) -> Result<Exit> {
    let mut signals = Signals::listen().map_err(|error| Failure::doing("listen to signals", error))?;
    let submission = submission(&arguments)?;
    let data = data_directory(arguments.data_dir)?;
    let directory = RunDirectory::make(&data.join("runs"))?;
    // Entering control groups takes longer than a small job. Without limits the keeper ends one job as well without them.
    let cgroups = if submission.resources.is_some() { Cgroups::WhereWritable } else { Cgroups::Never };
    let set_up = worker::set_up(worker::run_options(&data, directory.path(), cgroups));
    let start = async {
        let store = open_for_now(directory.path()).await?;
        Coordinator::start(store, Options::default(), Arc::new(Unobserved)).await.map_err(told)
    };
    // The keeper starts while the database is opened.
    let (coordinator, worker) = tokio::try_join!(start, set_up)?;
    check_limits(&submission, &worker.hello().offers)?;
    let client = coordinator.client(Tenant::default());
    let job = client.submit(submission).await.map_err(told)?.id;
    let (handle, shutdown) = ShutdownHandle::new();
    let working = worker.run(Arc::new(coordinator.clone()), shutdown);
    tokio::pin!(working);
    let exit = tokio::select! {
        exit = attend(&client, job, &mut signals) => exit?,
        ended = &mut working => {
            ended.map_err(worker::failure)?;
            // It isn't told to, so its job has ended or will go no further; either is shown until Ctrl-C.
            attend(&client, job, &mut signals).await?
        }
    };
    handle.end_jobs();
    Ok(exit)
}

/// Limits this machine can't keep would leave the job waiting for another machine.
fn check_limits(submission: &Submission, offers: &Offers) -> Result<()> {
    let Some(resources) = submission.resources else { return Ok(()) };
    let asked = [
        (resources.cpu.is_some(), Capability::LimitCpu, "--cpu"),
        (resources.memory.is_some(), Capability::LimitMemory, "--memory"),
        (resources.pids.is_some(), Capability::LimitPids, "--pids"),
    ];
    let refused: Vec<_> = asked
        .into_iter()
        .filter_map(|(asked, limit, flag)| (asked && !offers.capabilities.contains(&limit)).then_some(flag))
        .collect();
    if refused.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::FAILURE, format!("this machine can't keep a job to its {}", refused.join(", ")))
        .remedy("limits need control groups that this user may write to; run it as root, or leave the flag out"))
}

fn told(error: ApiError) -> Failure {
    Failure::api(&error, None)
}

/// The job: here, with this environment.
fn submission(arguments: &RunArgs) -> Result<Submission> {
    let directory = std::env::current_dir().map_err(|error| Failure::doing("find the current directory", error))?;
    let directory = directory.into_os_string().into_string().map_err(|name| {
        Failure::usage(format!("the name of the current directory is not UTF-8: {}", PathBuf::from(name).display()))
    })?;
    let resources = arguments.resources.resources();
    Ok(Submission {
        steps: Some(vec![Step::new(StepCommand::Argv(arguments.command.clone()))]),
        env: Some(arguments.env.iter().cloned().collect()),
        inherit: vec!["*".to_owned()],
        directory: Some(directory),
        timeout: arguments.timeout,
        resources: (resources != Resources::default()).then_some(resources),
        ..Submission::default()
    })
}

/// Shows the output until the job ends. The first signal cancels it, the second doesn't wait for that.
async fn attend(client: &TenantClient, job: JobId, signals: &mut Signals) -> Result<Exit> {
    let output = client.output(job, OutputFollow { attempt: None, offset: 0, follow: true }).await.map_err(told)?;
    let shown = show(output, StreamChoice::Both);
    tokio::pin!(shown);
    let stop = tokio::select! {
        stop = &mut shown => stop,
        () = signals.next() => {
            let cancelled = async {
                client.cancel(job, CancelWait::No).await.map_err(told)?;
                Ok::<_, Failure>(shown.await)
            };
            tokio::select! {
                stop = cancelled => stop?,
                () = signals.next() => return Ok(Exit::CANCELLED),
            }
        }
    };
    match stop {
        Stop::End(JobStatus::Completed) => Ok(Exit::SUCCESS),
        Stop::End(_) => {
            let job = client.job(job).await.map_err(told)?;
            if let Some(why) = why_it_ended(&job) {
                drop(writeln!(io::stderr(), "executr: {why}"));
            }
            Ok(Exit::of_job(&job))
        }
        Stop::Write(error) => {
            let ended = client.cancel(job, CancelWait::AtMost(CANCEL)).await;
            ended.map_err(told)?;
            match error.kind() {
                io::ErrorKind::BrokenPipe => Ok(Exit::OUTPUT_CLOSED),
                _ => Err(error.into()),
            }
        }
        Stop::Api(error) => Err(told(error)),
    }
}
