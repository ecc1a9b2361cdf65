//! `executr stats`

use std::io;

use executr_api::Client as _;

use crate::arguments::{OutputForm, StatsArgs};
use crate::connection::connect;
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::show::{Align, Column, Table, write_json};

pub(super) async fn stats(arguments: StatsArgs) -> Result<Exit> {
    let client = connect(&arguments.connection)?;
    let stats = client.stats().await.map_err(|error| Failure::api(&error, Some(client.server())))?;
    if arguments.output == OutputForm::Json {
        write_json(&mut io::stdout().lock(), &stats)?;
        return Ok(Exit::SUCCESS);
    }
    let mut table = Table::new(&[
        Column::new("WHAT", Align::Left),
        Column::new("WHICH", Align::Left),
        Column::new("NUMBER", Align::Right),
    ]);
    let groups = [
        ("jobs by status", &stats.jobs_by_status),
        ("unfinished by state", &stats.jobs_by_state),
        ("pending by priority", &stats.pending_by_priority),
        ("pending by queue", &stats.pending_by_queue),
    ];
    for (what, numbers) in groups {
        for (index, (which, number)) in numbers.iter().enumerate() {
            table.row(vec![if index == 0 { what } else { "" }.into(), which.into(), number.into()]);
        }
    }
    table.row(vec!["executors".into(), "active".into(), stats.active_executors.into()]);
    table.print()?;
    Ok(Exit::SUCCESS)
}
