//! What runs now, redrawn in place on a terminal: a line per running job, what has ended above it for good.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use executr_api::{JobState, RunState, StepEvent};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::format::step_name;
use super::{Happening, RunShow};
use crate::show::time::span;
use crate::show::{Ink, Paint, status_paint};

/// So many running jobs have a line of their own.
const MOST: usize = 16;
/// How often times are redrawn.
pub(crate) const REDRAW: Duration = Duration::from_millis(200);

/// The live picture of a run.
pub(crate) struct Live {
    screen: MultiProgress,
    total: ProgressBar,
    running: BTreeMap<String, Running>,
    ink: Ink,
    jobs: usize,
    ended: usize,
    failed: usize,
    name: String,
}

/// A job that runs.
struct Running {
    since: Instant,
    line: Option<ProgressBar>,
    step: String,
    last: String,
}

impl Live {
    /// A picture for the run of this workflow.
    pub(crate) fn new(name: &str, ink: Ink) -> Self {
        let screen = MultiProgress::new();
        let total = screen.add(ProgressBar::new(0));
        let style =
            ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
        total.set_style(style);
        total.enable_steady_tick(REDRAW);
        Self { screen, total, running: BTreeMap::new(), ink, jobs: 0, ended: 0, failed: 0, name: name.to_owned() }
    }

    fn total(&self) {
        let failed = if self.failed > 0 { format!(", {} failed", self.failed) } else { String::new() };
        let running = self.running.len();
        self.total.set_message(format!(
            "{}: {} of {} jobs done, {running} running{failed}",
            self.name, self.ended, self.jobs
        ));
    }

    fn draw(&mut self, job: &str) {
        let Some(running) = self.running.get(job) else { return };
        let Some(line) = &running.line else { return };
        let step = if running.step.is_empty() { String::new() } else { format!(" {}", running.step) };
        let time = span(running.since.elapsed());
        let last = self.ink.paint(Paint::Note, &running.last).into_owned();
        line.set_message(format!("{job}{step} {time} {last}"));
    }

    fn above(&self, text: &str) -> io::Result<()> {
        self.screen.println(text)
    }

    fn start(&mut self, job: &str) {
        let line = (self.running.values().filter(|running| running.line.is_some()).count() < MOST).then(|| {
            let line = self.screen.insert_before(&self.total, ProgressBar::new_spinner());
            let style =
                ProgressStyle::with_template("  {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
            line.with_style(style)
        });
        let running = Running { since: Instant::now(), line, step: String::new(), last: String::new() };
        self.running.insert(job.to_owned(), running);
        self.draw(job);
    }
}

impl RunShow for Live {
    fn show(&mut self, happening: &Happening) -> io::Result<()> {
        match happening {
            Happening::RunStarted { jobs, .. } => self.jobs = *jobs,
            Happening::JobStarted { job, .. } => self.start(job),
            Happening::Step { job, mark } => {
                if let Some(running) = self.running.get_mut(job) {
                    running.step = match mark.event {
                        StepEvent::Start | StepEvent::Retry if mark.max_attempts > 1 => {
                            format!("{} (try {} of {})", step_name(&mark.step), mark.attempt, mark.max_attempts)
                        }
                        _ => step_name(&mark.step).into_owned(),
                    };
                }
                self.draw(job);
            }
            Happening::Line { job, text, .. } => {
                if let Some(running) = self.running.get_mut(job) {
                    let text = String::from_utf8_lossy(text);
                    running.last = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
                }
            }
            Happening::Gap { .. } | Happening::DirectoryKept { .. } => {}
            Happening::JobRetrying { job, attempt, message } => {
                let why = message.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
                self.above(&format!("  {job} attempt {attempt} failed{why}; there will be another"))?;
            }
            Happening::JobEnded { job, state, message, .. } => {
                let mut took = String::new();
                if let Some(running) = self.running.remove(job) {
                    took = format!(" {}", span(running.since.elapsed()));
                    if let Some(line) = running.line {
                        line.finish_and_clear();
                        self.screen.remove(&line);
                    }
                }
                self.ended += 1;
                self.failed += usize::from(*state == JobState::Failed);
                let word = self.ink.paint(status_paint(*state), state.as_str()).into_owned();
                let why = message.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
                self.above(&format!("{word} {job}{took}{why}"))?;
            }
            Happening::Cancelling { reason } => self.above(&format!("cancelling: {reason}"))?,
            Happening::RunEnded { state } => {
                debug_assert!(*state != RunState::Running);
                self.clear();
                return Ok(());
            }
        }
        self.total();
        Ok(())
    }

    fn tick(&mut self) {
        let jobs: Vec<String> = self.running.keys().cloned().collect();
        for job in jobs {
            self.draw(&job);
        }
    }

    fn clear(&mut self) {
        for running in std::mem::take(&mut self.running).into_values() {
            if let Some(line) = running.line {
                line.finish_and_clear();
            }
        }
        self.total.finish_and_clear();
    }
}
