//! How a run ended: a line per job that is worth one, the end of what the failing ones wrote, and one sentence.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};

use executr_api::{JobState, RunJobView, RunState, RunView};

use crate::show::time::span;
use crate::show::{Align, Cell, Column, Ink, Table, status_paint};

/// So many lines of a failing job are shown at the end.
const LINES: usize = 20;

/// The last lines a job wrote.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    lines: VecDeque<Vec<u8>>,
    passed: u64,
}

impl Tail {
    /// Notes a line.
    pub(crate) fn push(&mut self, line: &[u8]) {
        if self.lines.len() == LINES {
            self.lines.pop_front();
            self.passed += 1;
        }
        self.lines.push_back(line.to_vec());
    }

    /// Forgets all: another attempt begins.
    pub(crate) fn clear(&mut self) {
        self.lines.clear();
        self.passed = 0;
    }
}

/// Shows how a run ended.
///
/// # Errors
/// When it can't be written.
pub(crate) fn summary(
    run: &RunView,
    jobs: &[RunJobView],
    tails: &BTreeMap<String, Tail>,
    ink: Ink,
    width: Option<usize>,
    out: &mut impl Write,
) -> io::Result<()> {
    for job in jobs.iter().filter(|job| job.state == JobState::Failed) {
        let Some(tail) = tails.get(&job.name).filter(|tail| !tail.lines.is_empty()) else { continue };
        let before = if tail.passed > 0 {
            format!(" (the last of {} lines)", tail.passed + LINES as u64)
        } else {
            String::new()
        };
        writeln!(out, "--- {}{before}", job.name)?;
        for line in &tail.lines {
            out.write_all(line)?;
            out.write_all(b"\n")?;
        }
    }
    if jobs.len() > 1 {
        let mut table = Table::new(&[
            Column::new("JOB", Align::Left),
            Column::new("STATE", Align::Left),
            Column::new("TOOK", Align::Right),
            Column::shrinking("WHY"),
        ]);
        for job in jobs.iter().filter(|job| jobs.len() <= 100 || job.state != JobState::Completed) {
            let took = job.started_at.zip(job.completed_at).map(|(start, end)| span(end.since(start)));
            table.row(vec![
                job.name.as_str().into(),
                Cell::painted(job.state, status_paint(job.state)),
                took.unwrap_or_default().into(),
                job.error_message.as_deref().unwrap_or_default().into(),
            ]);
        }
        table.write(out, ink, width)?;
    }
    let word = match run.state {
        RunState::Completed => "completed",
        RunState::Failed => "failed",
        RunState::Cancelled => "was cancelled",
        RunState::Running | RunState::Cancelling => "goes on",
    };
    let took = run.completed_at.map(|end| format!(" after {}", span(end.since(run.created_at)))).unwrap_or_default();
    let counts: Vec<String> = run.jobs.iter().map(|(state, count)| format!("{count} {state}")).collect();
    writeln!(out, "{} {word}{took}: {}", run.name, counts.join(", "))?;
    if let Some(message) = run.message.as_deref().filter(|_| run.state != RunState::Completed) {
        writeln!(out, "{message}")?;
    }
    Ok(())
}
