//! `executr run -- true`, the whole process, beside `make` with one rule.

use std::fs;
use std::io;
use std::process::Command;

use super::Settings;
use crate::program::{executr, timed};
use crate::report::{Row, Target, median};

/// How often each is run, in turns, for each repeat.
const RUNS: usize = 20;

/// Milliseconds of one run; nothing where there is no `make`.
///
/// # Errors
/// When a program fails.
pub fn measure(settings: &Settings) -> io::Result<Vec<Row>> {
    let place = tempfile::tempdir()?;
    fs::write(place.path().join("Makefile"), "all:; @true\n")?;
    let (mut ours, mut make) = (vec![], vec![]);
    for number in 0..settings.repeats * RUNS {
        let mut peer = Command::new("make");
        match timed(peer.current_dir(place.path())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            took => make.push(took?.as_secs_f64() * 1e3),
        }
        let mut run = Command::new(executr()?);
        run.arg("run").arg("--data-dir").arg(place.path().join("data")).args(["--", "true"]);
        let took = timed(run.current_dir(place.path()).env("HOME", place.path()))?;
        // The first makes what later ones find.
        if number > 0 {
            ours.push(took.as_secs_f64() * 1e3);
        }
    }
    Ok(vec![Row {
        measure: "executr run -- true, whole process".to_owned(),
        ours: median(&ours),
        against: "make with one rule".to_owned(),
        other: median(&make),
        unit: "ms",
        target: Target::AtMost(5.0),
    }])
}
