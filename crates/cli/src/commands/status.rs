//! `executr status`

use std::io::{self, Write as _};

use executr_api::Client as _;

use crate::arguments::{OutputForm, StatusArgs};
use crate::connection::connect;
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::show::{Ink, job_lines, now, write_json};

pub(super) async fn status(arguments: StatusArgs) -> Result<Exit> {
    let client = connect(&arguments.connection)?;
    let job = client.job(arguments.id).await.map_err(|error| Failure::api(&error, Some(client.server())))?;
    let mut out = io::stdout().lock();
    match arguments.output {
        OutputForm::Json => write_json(&mut out, &job)?,
        OutputForm::Table => out.write_all(job_lines(&job, now(), Ink::for_stdout()).as_bytes())?,
    }
    Ok(Exit::SUCCESS)
}
