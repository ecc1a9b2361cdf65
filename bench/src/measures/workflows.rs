//! `executr run FILE` with a thousand jobs: beside each other, in a lattice, in a chain. The whole command is on the clock.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Settings;
use crate::bounds;
use crate::program::{executr, timed};
use crate::report::{Row, Target, median};

const JOBS: u32 = 1_000;
const WIDE: u32 = 10;
/// More than processors, as in `throughput`: the jobs mostly wait to be started and taken away.
const SLOTS: &str = "16";

/// Jobs a second beside B2, and seconds of a chain beside B1.
///
/// # Errors
/// When the program fails.
pub fn measure(settings: &Settings) -> io::Result<Vec<Row>> {
    let home = tempfile::tempdir()?;
    let shapes = [("beside", beside()), ("lattice", lattice()), ("chain", chain())];
    for (name, text) in &shapes {
        fs::write(home.path().join(name).with_extension("yaml"), text)?;
    }
    let (mut rates, mut bound) = ([vec![], vec![]], vec![]);
    let (mut chains, mut spawns) = (vec![], vec![]);
    for _ in 0..settings.repeats {
        bound.push(bounds::busy::measure(JOBS / 2, home.path())?.rate());
        for (rates, (name, _)) in rates.iter_mut().zip(&shapes) {
            rates.push(f64::from(JOBS) / seconds(home.path(), name)?);
        }
        let b1 = bounds::sync::measure(JOBS, home.path())?;
        spawns.push((b1.spawn + b1.sync).as_secs_f64() * f64::from(JOBS));
        chains.push(seconds(home.path(), "chain")?);
    }
    let bound = bound.into_iter().fold(f64::NAN, f64::max);
    let row = |name: &str, ours: &[f64]| Row {
        measure: format!("executr run, {JOBS} jobs {name}"),
        ours: median(ours),
        against: "B2, best".to_owned(),
        other: bound,
        unit: "jobs/s",
        target: Target::AtLeast(0.75),
    };
    Ok(vec![
        row("beside each other", &rates[0]),
        row("in a lattice 10 wide", &rates[1]),
        Row {
            measure: format!("executr run, a chain of {JOBS} jobs"),
            ours: median(&chains),
            against: format!("{JOBS} × B1"),
            other: median(&spawns),
            unit: "s",
            target: Target::AtMost(1.5),
        },
    ])
}

fn seconds(home: &Path, name: &str) -> io::Result<f64> {
    let mut command = Command::new(executr()?);
    command.args(["run", "--jobs", SLOTS, "--data-dir"]).arg(home.join("data"));
    command.arg(home.join(name).with_extension("yaml")).current_dir(home).stdin(Stdio::null());
    timed(&mut command).map(|time| time.as_secs_f64())
}

fn head() -> String {
    "name: bench\ndefaults:\n  executor: { kind: local, copy_repo: false }\njobs:\n".to_owned()
}

fn job(text: &mut String, name: &str, needs: &[String]) {
    text.push_str(&format!("  {name}:\n    needs: [{}]\n    steps:\n      - argv: [/bin/true]\n", needs.join(", ")));
}

fn beside() -> String {
    let mut text = head();
    for n in 0..JOBS {
        job(&mut text, &format!("j{n}"), &[]);
    }
    text
}

/// Each job needs its own and the next one's forerunner in the row above.
fn lattice() -> String {
    let mut text = head();
    for row in 0..JOBS / WIDE {
        for column in 0..WIDE {
            let needs = match row {
                0 => vec![],
                _ => vec![format!("j{}-{column}", row - 1), format!("j{}-{}", row - 1, (column + 1) % WIDE)],
            };
            job(&mut text, &format!("j{row}-{column}"), &needs);
        }
    }
    text
}

fn chain() -> String {
    let mut text = head();
    for n in 0..JOBS {
        let needs = if n == 0 { vec![] } else { vec![format!("j{}", n - 1)] };
        job(&mut text, &format!("j{n}"), &needs);
    }
    text
}
