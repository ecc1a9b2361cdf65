//! Driver and keepers alone, without a queue.

use std::io;

use executr_agent_protocol::driver::Cgroups;

use super::Settings;
use crate::report::{Row, Target, median};
use crate::{bounds, keepers};

const TASKS: u32 = 3_000;
const GIBIBYTE: u64 = 1 << 30;

/// Tasks a second beside B2, the end of a `sleep` beside B1's spawn, and 1 GiB of output.
///
/// # Errors
/// When a keeper can't be started or fails.
pub fn measure(settings: &Settings) -> io::Result<Vec<Row>> {
    let place = tempfile::tempdir()?;
    let program = std::env::current_exe()?;
    let args = || vec!["keeper".into()];
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut rows = vec![];
    for number in [2, 8] {
        let (mut bound, mut tasks) = (vec![], vec![]);
        for _ in 0..settings.repeats {
            bound.push(bounds::busy::measure(TASKS, place.path())?.rate());
            let run = keepers::measure(TASKS, number, program.clone(), args(), Cgroups::WhereWritable, place.path());
            tasks.push(runtime.block_on(run).map_err(io::Error::other)?.rate());
        }
        rows.push(Row {
            measure: format!("{number} keepers, /bin/true"),
            ours: median(&tasks),
            against: "B2".to_owned(),
            other: median(&bound),
            unit: "tasks/s",
            target: Target::Shown,
        });
    }
    let spawn = bounds::sync::measure(200, place.path())?.spawn;
    let end = runtime.block_on(keepers::measure_end(200, program.clone(), args())).map_err(io::Error::other)?;
    rows.push(Row {
        measure: "keeper ends a sleep".to_owned(),
        ours: end.as_secs_f64() * 1e3,
        against: "B1, one spawn".to_owned(),
        other: spawn.as_secs_f64() * 1e3,
        unit: "ms",
        target: Target::Shown,
    });
    let output = runtime.block_on(keepers::measure_output(GIBIBYTE, program, args())).map_err(io::Error::other)?;
    rows.push(Row {
        measure: "1 GiB of output through a keeper".to_owned(),
        ours: output / 1e6,
        against: "100 MB/s, for scale".to_owned(),
        other: 100.0,
        unit: "MB/s",
        target: Target::Shown,
    });
    Ok(rows)
}
