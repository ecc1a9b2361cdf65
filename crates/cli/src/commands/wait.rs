//! `executr wait`

use std::io::{self, Write as _};
use std::time::Duration;

use executr_api::{ApiError, Client as _, JobStatus, JobView};
use executr_client::HttpClient;
use executr_spec::JobId;
use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, sleep, timeout_at};

use crate::arguments::{OutputForm, WaitArgs};
use crate::connection::connect;
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::show::{Ink, Progress, status_paint, write_json};

/// How many jobs are waited for at a time; the others have to end too, so their order doesn't matter.
const AT_ONCE: usize = 64;
/// How long one request waits. It is asked again until the job has ended.
const ONE_REQUEST: Duration = Duration::from_secs(30);
/// How long a server may be away.
const SERVER_AWAY: Duration = Duration::from_secs(60);

pub(super) async fn wait(arguments: WaitArgs) -> Result<Exit> {
    let client = connect(&arguments.connection)?;
    let deadline = arguments.timeout.and_then(|timeout| Instant::now().checked_add(timeout.0));
    let progress = Progress::of_things("waiting for jobs", arguments.ids.len() as u64);
    let mut ends = stream::iter(arguments.ids.iter().copied().enumerate())
        .map(|(index, id)| {
            let client = &client;
            async move { (index, until_final(client, id).await) }
        })
        .buffer_unordered(AT_ONCE);
    let mut jobs: Vec<Option<JobView>> = vec![None; arguments.ids.len()];
    loop {
        let next = match deadline {
            None => ends.next().await,
            Some(deadline) => match timeout_at(deadline, ends.next()).await {
                Ok(next) => next,
                Err(_) => {
                    let left = jobs.iter().filter(|job| job.is_none()).count();
                    let problem = format!("{left} of {} jobs have not ended in time", jobs.len());
                    return Err(Failure::new(Exit::FAILURE, problem));
                }
            },
        };
        let Some((index, end)) = next else { break };
        let job = end.map_err(|error| Failure::api(&error, Some(client.server())))?;
        progress.advance(1);
        if arguments.output == OutputForm::Table {
            tell(&progress, &job)?;
        }
        jobs[index] = Some(job);
    }
    drop(progress);
    let jobs: Vec<_> = jobs.into_iter().flatten().collect();
    if arguments.output == OutputForm::Json {
        write_json(&mut io::stdout().lock(), &jobs)?;
    }
    let all_well = jobs.iter().all(|job| job.status == JobStatus::Completed);
    Ok(if all_well { Exit::SUCCESS } else { Exit::FAILURE })
}

/// Waits until the job is final, also across a server's restart.
pub(super) async fn until_final(client: &HttpClient, id: JobId) -> std::result::Result<JobView, ApiError> {
    let mut heard = Instant::now();
    loop {
        match client.wait(id, ONE_REQUEST).await {
            Ok(job) if job.state.is_final() => return Ok(job),
            Ok(_) => heard = Instant::now(),
            Err(error) if error.code.is_transient() && heard.elapsed() < SERVER_AWAY + ONE_REQUEST => {
                sleep(Duration::from_millis(500)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn tell(progress: &Progress, job: &JobView) -> io::Result<()> {
    let ink = Ink::for_stdout();
    let status = ink.paint(status_paint(job.state), job.status.as_str());
    let code = job.exit_code.filter(|code| *code != 0).map(|code| format!(" (exit code {code})")).unwrap_or_default();
    let why = job.error_message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
    let line = format!("{} {status}{code}{why}", job.id);
    progress.beside(|| writeln!(io::stdout(), "{line}"))
}
