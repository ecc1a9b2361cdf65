//! Runs as tables.

use std::io::{self, Write as _};

use executr_api::{JobState, RunJobView, RunState, RunView};
use executr_spec::Timestamp;

use crate::show::time::span;
use crate::show::{Align, Cell, Column, Paint, Table, ago, amount, status_paint};

/// Runs, one a row; the second says whether its process died.
pub(crate) fn runs_table<'a>(runs: impl Iterator<Item = (&'a RunView, bool)>, now: Timestamp) -> Table {
    let mut table = Table::new(&[
        Column::new("RUN", Align::Left),
        Column::shrinking("WORKFLOW"),
        Column::new("STATE", Align::Left),
        Column::new("JOBS", Align::Right),
        Column::new("CREATED", Align::Left),
        Column::new("TOOK", Align::Right),
    ]);
    for (run, died) in runs {
        let total: u64 = run.jobs.values().sum();
        let done: u64 = run.jobs.iter().filter(|(state, _)| state.is_final()).map(|(_, count)| count).sum();
        let (word, paint) = if died { ("died", Paint::Bad) } else { (run.state.as_str(), run_paint(run.state)) };
        let took = run.completed_at.map(|end| span(end.since(run.created_at)));
        table.row(vec![
            run.id.into(),
            run.name.as_str().into(),
            Cell::painted(word, paint),
            format!("{done}/{total}").into(),
            ago(run.created_at, now).into(),
            took.unwrap_or_default().into(),
        ]);
    }
    table
}

/// A run and its jobs, on standard output; `died` as in [`runs_table`].
///
/// # Errors
/// When it can't be written.
pub(crate) fn run_lines(run: &RunView, died: bool, jobs: &[RunJobView], now: Timestamp) -> io::Result<()> {
    runs_table(std::iter::once((run, died)), now).print()?;
    let mut out = io::stdout().lock();
    if let Some(message) = &run.message {
        writeln!(out, "{message}")?;
    }
    writeln!(out)?;
    drop(out);
    let mut table = Table::new(&[
        Column::new("JOB", Align::Left),
        Column::new("ID", Align::Left),
        Column::new("STATE", Align::Left),
        Column::new("TOOK", Align::Right),
        Column::shrinking("ARTIFACTS"),
        Column::shrinking("WHY"),
    ]);
    for job in jobs {
        let took = match (job.started_at, job.completed_at) {
            (Some(start), Some(end)) => span(end.since(start)),
            (Some(start), None) if job.state == JobState::Running => span(now.since(start)),
            _ => String::new(),
        };
        let artifacts: Vec<String> =
            job.artifacts.iter().map(|artifact| format!("{} ({})", artifact.name, amount(artifact.size))).collect();
        table.row(vec![
            job.name.as_str().into(),
            job.id.into(),
            Cell::painted(job.state, status_paint(job.state)),
            took.into(),
            artifacts.join(", ").into(),
            job.error_message.as_deref().unwrap_or_default().into(),
        ]);
    }
    table.print()
}

fn run_paint(state: RunState) -> Paint {
    match state {
        RunState::Completed => Paint::Good,
        RunState::Failed => Paint::Bad,
        RunState::Running | RunState::Cancelling => Paint::Busy,
        RunState::Cancelled => Paint::Note,
    }
}
