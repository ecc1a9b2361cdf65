//! `executr executors`

use std::io;

use executr_api::Client as _;

use crate::arguments::{ExecutorsArgs, OutputForm};
use crate::connection::connect;
use crate::errors::{Failure, Result};
use crate::exit::Exit;
use crate::show::{Align, Cell, Column, Paint, Table, ago, now, write_json};

pub(super) async fn executors(arguments: ExecutorsArgs) -> Result<Exit> {
    let client = connect(&arguments.connection)?;
    let executors = client.workers().await.map_err(|error| Failure::api(&error, Some(client.server())))?;
    if arguments.output == OutputForm::Json {
        write_json(&mut io::stdout().lock(), &executors)?;
        return Ok(Exit::SUCCESS);
    }
    let mut table = Table::new(&[
        Column::new("ID", Align::Left),
        Column::new("STATE", Align::Left),
        Column::new("JOBS", Align::Right),
        Column::new("DONE", Align::Right),
        Column::new("HEARD OF", Align::Left),
        Column::new("VERSION", Align::Left),
        Column::shrinking("QUEUES"),
        Column::shrinking("LABELS"),
    ]);
    let now = now();
    for executor in &executors {
        let (state, paint) = match (executor.draining, executor.running) {
            (true, _) => ("draining", Paint::Note),
            (false, 0) => ("idle", Paint::Plain),
            (false, _) => ("busy", Paint::Busy),
        };
        let queues: Vec<_> = executor.queues.iter().map(|queue| format!("{}={}", queue.queue, queue.weight)).collect();
        let labels: Vec<_> = executor.offers.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        table.row(vec![
            (&executor.executor_id).into(),
            Cell::painted(state, paint),
            format!("{}/{}", executor.running, executor.slots).into(),
            executor.jobs_completed.into(),
            ago(executor.last_heartbeat, now).into(),
            executor.version.as_deref().unwrap_or_default().into(),
            queues.join(" ").into(),
            labels.join(" ").into(),
        ]);
    }
    table.print()?;
    Ok(Exit::SUCCESS)
}
