//! Marks in the output of jobs of runs: what happened to a step, and where in the output.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use executr_api::output::Stream;
use executr_api::{StepEvent, StepMark, StepOutcome};
use executr_spec::Step;

use super::Attempt;
use crate::verdict::StepVerdict;

/// One step's marks.
pub(super) struct Marks {
    step: String,
    most: u32,
}

/// What people call a step where it can't be empty: its name, else its number.
pub(super) fn name_of(step: &Step, index: usize) -> String {
    step.name.clone().unwrap_or_else(|| (index + 1).to_string())
}

impl Attempt<'_> {
    /// The marks of a step; `None` in jobs that have none.
    pub(super) fn marks(&self, step: &Step, index: usize) -> Option<Marks> {
        self.run?;
        let most = step.retry.map_or(1, |retry| retry.max_attempts.max(1));
        Some(Marks { step: name_of(step, index), most })
    }

    pub(super) fn mark_start(&mut self, marks: Option<&Marks>, attempt: u32, env: &BTreeMap<String, String>) {
        let Some(marks) = marks else { return };
        let env = env.iter().map(|(name, value)| (name.clone(), shown(self.masking.text(value.clone())))).collect();
        self.mark(StepMark { env, ..marks.mark(StepEvent::Start, attempt) });
    }

    /// A try ended: with what, after how long, and how long until the next, if there is one.
    pub(super) fn mark_end(
        &mut self,
        marks: Option<&Marks>,
        attempt: u32,
        verdict: &StepVerdict,
        took: Duration,
        delay: Option<Duration>,
    ) {
        let Some(marks) = marks else { return };
        let event = match (verdict.is_success(), delay) {
            (true, _) => StepEvent::Success,
            (false, Some(_)) => StepEvent::Retry,
            (false, None) => StepEvent::Failed,
        };
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.mark(StepMark {
            exit_code: verdict.exit_code,
            duration_ms: Some(millis(took)),
            delay_ms: delay.map(millis),
            ..marks.mark(event, attempt)
        });
    }

    pub(super) fn mark_skipped(&mut self, step: &Step, index: usize) {
        if let Some(marks) = self.marks(step, index) {
            self.mark(marks.mark(StepEvent::Skipped, 1));
        }
    }

    /// A step ended before it could begin.
    pub(super) fn mark_refused(&mut self, step: &Step, index: usize, verdict: &StepVerdict) {
        if let Some(marks) = self.marks(step, index) {
            let cancelled = verdict.outcome == StepOutcome::Cancelled;
            self.mark(marks.mark(if cancelled { StepEvent::Skipped } else { StepEvent::Failed }, 1));
        }
    }

    fn mark(&mut self, mark: StepMark) {
        // A mark holds nothing but text and numbers: it can be written as JSON.
        if let Ok(mut line) = serde_json::to_vec(&mark) {
            line.push(b'\n');
            self.feed.push(Stream::Mark, &Bytes::from(line));
        }
    }
}

/// A long value in a mark is cut.
fn shown(mut value: String) -> String {
    const LONGEST: usize = 4 << 10;
    if value.len() > LONGEST {
        let end = value.char_indices().map(|(at, _)| at).take_while(|at| *at <= LONGEST).last();
        value.truncate(end.unwrap_or(0));
        value.push('…');
    }
    value
}

impl Marks {
    fn mark(&self, event: StepEvent, attempt: u32) -> StepMark {
        StepMark {
            event,
            step: self.step.clone(),
            attempt,
            max_attempts: self.most,
            exit_code: None,
            duration_ms: None,
            delay_ms: None,
            env: BTreeMap::new(),
        }
    }
}
