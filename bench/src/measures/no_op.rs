//! Jobs that do nothing, at the coordinator: what the queue itself costs, submission included, history kept.

use std::io;
use std::time::Duration;

use executr_tests::postgres::{Durability, Server};

use super::Settings;
use crate::in_process::no_op_jobs;
use crate::peers::graphile;
use crate::report::{Row, Target, median};
use crate::statements;
use crate::stores::{self, Kind};

const JOBS: u32 = 50_000;
const SLOW_SYNC: Duration = Duration::from_millis(5);

/// Jobs a second on PostgreSQL beside graphile-worker.
///
/// # Errors
/// When a store or the peer fails.
pub fn postgres(settings: &Settings) -> io::Result<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (mut postgres, mut graphile) = (vec![], vec![]);
    for _ in 0..settings.repeats {
        if let Some(opened) = runtime.block_on(Kind::Postgres.open())? {
            postgres.push(no_op_jobs(&opened.store, JOBS)?);
        }
        if let (Some(folder), Some(server)) = (&settings.graphile_worker, Server::start(Durability::Synced)) {
            let database = server.database();
            graphile.push(graphile::no_op_jobs(folder, &database.url(), JOBS, 10)?);
        }
    }
    if postgres.is_empty() || graphile.is_empty() {
        return Ok(vec![]);
    }
    Ok(vec![row("PostgreSQL", &postgres, "graphile-worker batched", &graphile, 0.7)])
}

/// Jobs a second embedded, beside its bare statements and beside slow syncs.
///
/// # Errors
/// When the store fails.
pub fn embedded(settings: &Settings) -> io::Result<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (mut embedded, mut bare, mut slow) = (vec![], vec![], vec![]);
    for _ in 0..settings.repeats {
        embedded.push(no_op_jobs(&runtime.block_on(stores::embedded(Duration::ZERO))?.store, JOBS)?);
        slow.push(no_op_jobs(&runtime.block_on(stores::embedded(SLOW_SYNC))?.store, JOBS)?);
        bare.push(statements::per_second(JOBS)?);
    }
    Ok(vec![
        row("embedded", &embedded, "the bare statements", &bare, 0.6),
        row("embedded, 5 ms more a sync", &slow, "embedded", &embedded, 0.8),
    ])
}

fn row(name: &str, ours: &[f64], against: &str, other: &[f64], least: f64) -> Row {
    Row {
        measure: format!("no-op jobs at the coordinator, {name}"),
        ours: median(ours),
        against: against.to_owned(),
        other: median(other),
        unit: "jobs/s",
        target: Target::AtLeast(least),
    }
}
