//! 10,000 × `/bin/true` through a server and one executor: submission, leases, processes, results, output kept.

use std::io;
use std::time::{Duration, Instant};

use executr_tests::postgres::{Durability, Server as Postgres};

use super::Settings;
use crate::bounds;
use crate::http;
use crate::peers::hyperqueue::HyperQueue;
use crate::program::{Executor, Server};
use crate::report::{Row, Target, median};

const JOBS: u32 = 10_000;
const SLOTS: u32 = 32;

/// Jobs a second on both stores, beside the bound B2 and HyperQueue.
///
/// # Errors
/// When the program or a peer fails.
pub fn measure(settings: &Settings) -> io::Result<Vec<Row>> {
    let (mut embedded, mut postgres, mut bound, mut hyperqueue) = (vec![], vec![], vec![], vec![]);
    for _ in 0..settings.repeats {
        let place = tempfile::tempdir()?;
        bound.push(bounds::busy::measure(JOBS / 2, place.path())?.rate());
        embedded.push(jobs_per_second(None)?);
        if let Some(server) = Postgres::start(Durability::Synced) {
            let database = server.database();
            postgres.push(jobs_per_second(Some(&database.url()))?);
        }
        if let Some(clone) = &settings.hyperqueue {
            let peer = HyperQueue::start(clone, 2)?;
            hyperqueue.push(f64::from(JOBS) / peer.tasks(JOBS)?.as_secs_f64());
        }
    }
    // A bound is the best that was seen: making directories gets slower for a minute after many files were removed, as a
    // peer's are, and that says nothing of what the machine can do.
    let bound = bound.into_iter().fold(f64::NAN, f64::max);
    let row = |name: &str, ours: &[f64], against: &str, other: f64, least: f64| Row {
        measure: format!("{JOBS} × /bin/true, {name}"),
        ours: median(ours),
        against: against.to_owned(),
        other,
        unit: "jobs/s",
        target: Target::AtLeast(least),
    };
    let mut rows = vec![row("embedded", &embedded, "B2, best", bound, 0.80)];
    if !hyperqueue.is_empty() {
        rows.push(row("embedded", &embedded, "HyperQueue", median(&hyperqueue), 2.0));
    }
    if !postgres.is_empty() {
        rows.push(row("PostgreSQL", &postgres, "B2, best", bound, 0.70));
    }
    Ok(rows)
}

fn jobs_per_second(db_url: Option<&str>) -> io::Result<f64> {
    let server = Server::start(db_url, &[])?;
    let executor = Executor::start(&server.url, SLOTS, &[])?;
    http::runtime()?.block_on(async {
        let client = http::client(&server.url)?;
        http::wait_for_executors(&client, 1).await?;
        let start = Instant::now();
        http::submit_trivial(&client, JOBS, 1_000).await?;
        http::wait_for_completed(&client, u64::from(JOBS), Duration::from_secs(300)).await?;
        let took = start.elapsed();
        drop(executor);
        Ok(f64::from(JOBS) / took.as_secs_f64())
    })
}
