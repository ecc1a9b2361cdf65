//! One `executr submit --wait -- true`, the whole command, beside HyperQueue's.

use std::io;
use std::process::Command;

use super::Settings;
use crate::peers::hyperqueue::HyperQueue;
use crate::program::{Executor, Server, executr, timed};
use crate::report::{Row, Target, median};

const TIMES_PER_REPEAT: usize = 20;

/// Milliseconds from start to exit of the command, with an idle executor.
///
/// # Errors
/// When the program or the peer fails.
pub fn measure(settings: &Settings) -> io::Result<Vec<Row>> {
    let server = Server::start(None, &[])?;
    let _executor = Executor::start(&server.url, 2, &[])?;
    let peer = settings.hyperqueue.as_deref().map(|clone| HyperQueue::start(clone, 2)).transpose()?;
    let program = executr()?;
    let submit = || timed(Command::new(&program).args(["submit", "--wait", "--server-url", &server.url, "--", "true"]));
    let spawn = || timed(Command::new(&program).arg("--version"));
    submit()?;
    let (mut ours, mut theirs, mut bare) = (vec![], vec![], vec![]);
    for _ in 0..settings.repeats * TIMES_PER_REPEAT {
        ours.push(submit()?.as_secs_f64() * 1e3);
        bare.push(spawn()?.as_secs_f64() * 1e3);
        if let Some(peer) = &peer {
            theirs.push(peer.submit_and_wait()?.as_secs_f64() * 1e3);
        }
    }
    let row = |against: &str, other: &[f64], target| Row {
        measure: "submit --wait -- true".to_owned(),
        ours: median(&ours),
        against: against.to_owned(),
        other: median(other),
        unit: "ms",
        target,
    };
    let mut rows = vec![row("executr --version", &bare, Target::Shown)];
    if peer.is_some() {
        rows.push(row("HyperQueue", &theirs, Target::AtMost(0.25)));
    }
    Ok(rows)
}
