//! `executr submit`

use std::io::{self, IsTerminal as _, Write as _};

use executr_api::{Client as _, JobStatus, JobView, OutputFollow, Submission, SubmittedJob};
use executr_client::HttpClient;
use executr_spec::{JobId, Resources};

use super::follow::{Stop, show};
use super::submission::{self, Program};
use super::workflow::there;
use super::{digest, upload};
use crate::arguments::{OutputForm, StreamChoice, SubmitArgs, is_workflow};
use crate::connection::connect;
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::services::data_directory;
use crate::show::write_json;

/// How many jobs of a file go into one request. All of a request are submitted or none.
const IN_ONE_REQUEST: usize = 1_000;

pub(super) async fn submit(arguments: SubmitArgs) -> Result<Exit> {
    let waits = arguments.wait;
    let result = submit_as_told(arguments).await;
    if waits { result.map_err(Failure::beside_a_jobs) } else { result }
}

async fn submit_as_told(arguments: SubmitArgs) -> Result<Exit> {
    let client = connect(&arguments.connection)?;
    if let Some((file, jobs)) = arguments.command.split_first().filter(|(file, _)| is_workflow(file)) {
        let only_for_jobs = arguments.timeout.is_some()
            || arguments.max_retries > 0
            || arguments.resources.resources() != Resources::default()
            || !arguments.label.is_empty()
            || arguments.run_at.is_some()
            || arguments.job_type.is_some()
            || arguments.concurrency_key.is_some();
        if only_for_jobs {
            return Err(Failure::usage(
                "the flags under `Job` and `Limits` are for a command, but for --env and --idempotency-key",
            )
            .remedy("in a workflow they are written in its file"));
        }
        let answer = there::Answer {
            wait: arguments.wait,
            output: arguments.output,
            idempotency_key: arguments.idempotency_key.clone(),
        };
        let data = data_directory(None)?;
        return there::submit(&client, file.as_ref(), jobs, &arguments.workflow, &arguments.env, &data, answer).await;
    }
    if let Some(path) = &arguments.file {
        return submit_all(&client, submission::in_file(path)?, arguments.output).await;
    }
    let submission = match submission::program(&arguments)? {
        Program::There(command) => submission::of_step(command, &arguments),
        Program::Here(path, args) => {
            let digest = upload::upload(&client, &path).await?;
            submission::of_step(submission::uploaded(digest, args), &arguments)
        }
        Program::At(url, args) => {
            let digest = match arguments.binary_sha256 {
                Some(digest) => digest,
                None => digest::of_url(&url).await?,
            };
            submission::of_url(url, digest, args, &arguments)
        }
    };
    let job = client.submit(submission).await.map_err(|error| Failure::api(&error, Some(client.server())))?;
    if arguments.wait {
        return wait(&client, &job, arguments.output).await;
    }
    match arguments.output {
        OutputForm::Json => write_json(&mut io::stdout().lock(), &job)?,
        OutputForm::Table => {
            writeln!(io::stdout(), "{}", job.id)?;
            if io::stdout().is_terminal() {
                drop(writeln!(io::stderr(), "its output: executr logs -f {}", job.id));
            }
        }
    }
    Ok(Exit::SUCCESS)
}

/// Shows a job's output as it appears and ends as the job did. With JSON the job itself is shown, at its end.
async fn wait(client: &HttpClient, job: &JobView, form: OutputForm) -> Result<Exit> {
    let told = |error| Failure::api(&error, Some(client.server()));
    let output = client.output(job.id, OutputFollow { attempt: None, offset: 0, follow: true }).await.map_err(told)?;
    let choice = if form == OutputForm::Json { StreamChoice::Neither } else { StreamChoice::Both };
    let stop = tokio::select! {
        stop = show(output, choice) => stop,
        _ = tokio::signal::ctrl_c() => return Ok(left_alone(job.id)),
    };
    let status = match stop {
        Stop::End(status) => Some(status),
        // Nobody reads the output any more, but the exit code is still waited for.
        Stop::Write(error) if error.kind() == io::ErrorKind::BrokenPipe => None,
        Stop::Write(error) => return Err(error.into()),
        Stop::Api(error) => return Err(told(error)),
    };
    if status == Some(JobStatus::Completed) && form == OutputForm::Table {
        return Ok(Exit::SUCCESS);
    }
    let job = super::wait::until_final(client, job.id).await.map_err(told)?;
    match form {
        OutputForm::Json => write_json(&mut io::stdout().lock(), &job)?,
        OutputForm::Table => {
            if let Some(why) = why_it_ended(&job) {
                drop(writeln!(io::stderr(), "executr: job {}: {why}", job.id));
            }
        }
    }
    Ok(Exit::of_job(&job))
}

/// Why a job did not complete, where its exit code and output don't say it.
pub(super) fn why_it_ended(job: &JobView) -> Option<&str> {
    let message = job.error_message.as_deref().unwrap_or("failed");
    match (job.status, job.exit_code) {
        (JobStatus::Cancelled, _) => Some("cancelled"),
        (JobStatus::Failed, Some(code)) if message == format!("exit code {code}") => None,
        (JobStatus::Failed, _) => Some(message),
        _ => None,
    }
}

fn left_alone(id: JobId) -> Exit {
    drop(writeln!(io::stderr(), "\nthe job goes on: executr logs -f {id}, or executr cancel {id}"));
    Exit::CANCELLED
}

async fn submit_all(client: &HttpClient, jobs: Vec<Submission>, form: OutputForm) -> Result<Exit> {
    let (total, mut jobs) = (jobs.len(), jobs.into_iter());
    let mut submitted: Vec<SubmittedJob> = Vec::with_capacity(total);
    let mut failure = None;
    while failure.is_none() && jobs.len() > 0 {
        match client.submit_bulk(jobs.by_ref().take(IN_ONE_REQUEST).collect()).await {
            Ok(mut answers) => submitted.append(&mut answers),
            Err(error) => {
                let index = error.context.get("index").and_then(|index| index.parse::<usize>().ok());
                let which = index.map(|index| format!("job {} of the file: ", submitted.len() + index + 1));
                let mut error = error;
                error.message.insert_str(0, which.as_deref().unwrap_or_default());
                if !submitted.is_empty() {
                    error.message += &format!(" (the first {} jobs are submitted)", submitted.len());
                }
                failure = Some(Failure::api(&error, Some(client.server())));
            }
        }
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    match form {
        OutputForm::Json if failure.is_none() || !submitted.is_empty() => write_json(&mut out, &submitted)?,
        OutputForm::Json => {}
        OutputForm::Table => submitted.iter().try_for_each(|job| writeln!(out, "{}", job.id))?,
    }
    out.flush()?;
    failure.map_or(Ok(Exit::SUCCESS), Err)
}
