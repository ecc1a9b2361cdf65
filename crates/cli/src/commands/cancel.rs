//! `executr cancel`

use std::io::{self, Write as _};

use executr_api::{CancelWait, Client as _, JobState, JobView};
use futures_util::{StreamExt as _, stream};

use crate::arguments::{CancelArgs, OutputForm};
use crate::connection::connect;
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::show::{Ink, status_paint, write_json};

/// How many cancellations are under way at a time.
const AT_ONCE: usize = 32;

pub(super) async fn cancel(arguments: CancelArgs) -> Result<Exit> {
    let client = connect(&arguments.connection)?;
    let wait = if arguments.no_wait { CancelWait::No } else { CancelWait::AtMost(arguments.wait.0) };
    let mut answers =
        stream::iter(&arguments.ids).map(|id| async { (*id, client.cancel(*id, wait).await) }).buffered(AT_ONCE);
    let mut exit = Exit::SUCCESS;
    let mut failure = None;
    let mut jobs = Vec::new();
    while let Some((id, answer)) = answers.next().await {
        match answer {
            Ok(job) => {
                if !is_cancelled(&job, wait) {
                    exit = Exit::FAILURE;
                }
                if arguments.output == OutputForm::Table {
                    tell(&job)?;
                }
                jobs.push(job);
            }
            // The others are still cancelled.
            Err(error) => {
                let next = Failure::api(&error, Some(client.server()));
                if let Some(earlier) = failure.replace(next) {
                    Failure::report(earlier);
                }
                drop(writeln!(io::stderr(), "job {id} was not cancelled"));
            }
        }
    }
    if arguments.output == OutputForm::Json {
        match &jobs[..] {
            [job] if arguments.ids.len() == 1 => write_json(&mut io::stdout().lock(), job)?,
            jobs => write_json(&mut io::stdout().lock(), jobs)?,
        }
    }
    failure.map_or(Ok(exit), Err)
}

fn is_cancelled(job: &JobView, wait: CancelWait) -> bool {
    job.state == JobState::Cancelled || (wait == CancelWait::No && job.state == JobState::Cancelling)
}

fn tell(job: &JobView) -> io::Result<()> {
    let ink = Ink::for_stdout();
    let state = ink.paint(status_paint(job.state), job.state.as_str());
    let why = match job.state {
        JobState::Cancelled => "",
        JobState::Cancelling => ": its processes are still being ended",
        _ => ": it had ended before",
    };
    writeln!(io::stdout(), "{} {state}{why}", job.id)
}
