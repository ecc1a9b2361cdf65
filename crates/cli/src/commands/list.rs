//! `executr list`

use std::io::{self, IsTerminal as _, Write as _};

use executr_api::{Client as _, JobQuery};

use crate::arguments::{ListArgs, OutputForm};
use crate::connection::connect;
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::show::{jobs_table, now, write_json};

pub(super) async fn list(arguments: ListArgs) -> Result<Exit> {
    let client = connect(&arguments.connection)?;
    let query = JobQuery {
        status: arguments.status,
        job_type: arguments.job_type,
        priority: arguments.priority,
        queue: arguments.queue,
        limit: Some(arguments.limit),
        offset: 0,
        before: arguments.before,
    };
    let jobs = client.jobs(query).await.map_err(|error| Failure::api(&error, Some(client.server())))?;
    match arguments.output {
        OutputForm::Json => write_json(&mut io::stdout().lock(), &jobs)?,
        OutputForm::Table => {
            jobs_table(&jobs, now()).print()?;
            let full = jobs.len() == usize::try_from(arguments.limit).unwrap_or(usize::MAX);
            if let Some(last) = jobs.last().filter(|_| full && io::stderr().is_terminal()) {
                drop(writeln!(io::stderr(), "there may be more: --limit, or --before {}", last.id));
            }
        }
    }
    Ok(Exit::SUCCESS)
}
