//! Isolated jobs without a daemon, beside the bare runtime and Docker.

use std::io;
use std::time::Instant;

use futures_util::future::try_join_all;

use super::Settings;
use crate::containers::{Bare, Direct, Docker, root};
use crate::report::{Row, Target, median};

const TIMES_PER_REPEAT: usize = 10;
const JOBS: usize = 100;
const SLOTS: usize = 2;

/// Milliseconds from a job's lease to its result, and jobs a second on two slots.
///
/// # Errors
/// When something can't be run.
pub fn measure(settings: &Settings) -> io::Result<Vec<Row>> {
    let place = tempfile::tempdir()?;
    let Some(root) = root(place.path()) else { return Ok(Vec::new()) };
    let bare = Bare::new(place.path(), &root)?;
    let docker = Docker::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let direct = runtime.block_on(Direct::open(place.path(), &root))?;
    let (mut ours, mut crun, mut dockers, mut rates, mut docker_rates) = (vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..settings.repeats {
        for _ in 0..TIMES_PER_REPEAT {
            ours.push(runtime.block_on(direct.job())?.as_secs_f64() * 1e3);
            crun.push(bare.run()?.as_secs_f64() * 1e3);
            if let Some(docker) = &docker {
                dockers.push(docker.run()?.as_secs_f64() * 1e3);
            }
        }
        rates.push(runtime.block_on(rate(&direct))?);
        if let Some(docker) = &docker {
            docker_rates.push(docker_rate(docker)?);
        }
    }
    runtime.block_on(direct.close());
    let row = |measure: &str, ours: &[f64], against: &str, other: &[f64], unit, target| Row {
        measure: measure.to_owned(),
        ours: median(ours),
        against: against.to_owned(),
        other: median(other),
        unit,
        target,
    };
    let mut rows = vec![row("isolated job on direct", &ours, "crun run", &crun, "ms", Target::AtMost(2.0))];
    if docker.is_some() {
        let against = "docker run --rm --network none";
        rows.push(row("isolated job on direct", &ours, against, &dockers, "ms", Target::AtMost(0.125)));
        let measure = "100 isolated jobs, two slots";
        rows.push(row(measure, &rates, against, &docker_rates, "jobs/s", Target::AtLeast(5.0)));
    }
    Ok(rows)
}

async fn rate(direct: &Direct) -> io::Result<f64> {
    let begun = Instant::now();
    let slots = (0..SLOTS).map(|_| async {
        for _ in 0..JOBS / SLOTS {
            direct.job().await?;
        }
        io::Result::Ok(())
    });
    try_join_all(slots).await?;
    Ok(JOBS as f64 / begun.elapsed().as_secs_f64())
}

fn docker_rate(docker: &Docker) -> io::Result<f64> {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let slot = || (0..JOBS / SLOTS).try_for_each(|_| docker.run().map(drop));
        let slots: Vec<_> = (0..SLOTS).map(|_| scope.spawn(slot)).collect();
        slots.into_iter().try_for_each(|slot| slot.join().map_err(|_| io::Error::other("a slot broke"))?)
    })?;
    Ok(JOBS as f64 / begun.elapsed().as_secs_f64())
}
