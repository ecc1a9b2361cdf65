//! One step's tries, and the waits between.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use executr_api::{StepOutcome, Usage};
use executr_executors::contract::{Handover, Sandbox, StepPlan};
use executr_spec::{Step, StepCommand};
use tokio::time::Instant;

use super::capture::Capture;
use super::execution::{Begin, Deadline, StepEnd, is_busy, passed, program};
use super::{Attempt, acts, handover, lost};
use crate::verdict::{self, Ending, StepVerdict};

/// A step that is to run.
pub(super) struct Planned<'a> {
    pub(super) index: usize,
    pub(super) step: &'a Step,
    /// What it runs, expressions in its words evaluated.
    pub(super) command: Cow<'a, StepCommand>,
    /// Where it starts, from the job directory.
    pub(super) workdir: Option<PathBuf>,
    /// What is declared for it, when that isn't just written.
    pub(super) declared: Option<BTreeMap<String, String>>,
    /// Which streams later expressions name.
    pub(super) capture: Capture,
    /// Nobody looks into the job directory after it.
    pub(super) last: bool,
}

/// A step that ran.
pub(super) struct Tried {
    pub(super) verdict: StepVerdict,
    pub(super) usage: Option<Usage>,
    pub(super) capture: Capture,
    pub(super) outputs: BTreeMap<String, String>,
    /// Where somebody asks.
    pub(super) changed_files: Option<Vec<String>>,
}

impl Tried {
    /// A step that couldn't be tried.
    pub(super) fn refused(verdict: StepVerdict) -> Self {
        Self { verdict, usage: None, capture: Capture::default(), outputs: BTreeMap::new(), changed_files: None }
    }
}

impl Attempt<'_> {
    /// Tries the step as often as it may be tried, until one ends well.
    pub(super) async fn tries(&mut self, sandbox: &mut dyn Sandbox, mut planned: Planned<'_>) -> Tried {
        let step = planned.step;
        let retry = step.retry.unwrap_or_default();
        let most = retry.max_attempts.max(1);
        let marks = self.marks(step, planned.index);
        let mut total = None;
        let mut attempt = 1;
        let nothing = BTreeMap::new();
        loop {
            self.mark_start(marks.as_ref(), attempt, planned.declared.as_ref().unwrap_or(&nothing));
            let started = Instant::now();
            planned.capture.clear();
            let deadline = self.deadline(step);
            let (verdict, usage, outputs) = match &step.image {
                None => self.try_in(sandbox, &mut planned, attempt == most, deadline).await,
                Some(image) => self.try_in_image(sandbox, image, &mut planned, deadline).await,
            };
            total = usage.map_or(total, |usage| Some(total.map_or(usage, |before: Usage| before.then(usage))));
            let delay = (attempt < most && self.may_repeat(&verdict)).then(|| retry.waits().delay(attempt));
            self.mark_end(marks.as_ref(), attempt, &verdict, started.elapsed(), delay);
            let Some(delay) = delay else {
                return Tried { usage: total, capture: planned.capture, outputs, ..Tried::refused(verdict) };
            };
            if let Err(verdict) = self.wait(delay).await {
                // The next one never began: it is the last that ended which isn't repeated.
                self.mark_end(marks.as_ref(), attempt, &verdict, started.elapsed(), None);
                return Tried { usage: total, capture: planned.capture, outputs, ..Tried::refused(verdict) };
            }
            attempt += 1;
        }
    }

    /// Whether another try may end better, and may begin.
    fn may_repeat(&self, verdict: &StepVerdict) -> bool {
        let failed = matches!(verdict.outcome, StepOutcome::Failed | StepOutcome::TimedOut);
        let in_time = self.job_deadline().is_none_or(|(at, _)| Instant::now() < at);
        failed && verdict.retryable && !verdict.place_lost && in_time && self.urgent_order().is_none()
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// What the wait came to instead: an order to stop, or the end of the job's time.
    async fn wait(&mut self, delay: Duration) -> Result<(), StepVerdict> {
        let over = tokio::time::sleep(delay);
        tokio::pin!(over);
        loop {
            if let Some(order) = self.urgent_order() {
                return Err(StepVerdict::ended_early(Ending::Stopped(order.reason)));
            }
            let deadline = self.job_deadline();
            tokio::select! {
                biased;
                _ = self.stop.ordered() => {}
                limit = passed(deadline) => return Err(StepVerdict::ended_early(Ending::TimedOut(limit))),
                () = &mut over => return Ok(()),
                () = self.feed.work() => {}
            }
        }
    }

    /// One try, and what it hands over.
    pub(super) async fn try_in(
        &mut self,
        sandbox: &mut dyn Sandbox,
        planned: &mut Planned<'_>,
        is_last_try: bool,
        deadline: Deadline,
    ) -> (StepVerdict, Option<Usage>, BTreeMap<String, String>) {
        let (mut verdict, usage) = self.try_once(sandbox, planned, is_last_try, deadline).await;
        let outputs = match self.taken(sandbox).await {
            Ok(outputs) => outputs,
            Err(problem) => {
                // What failed already is told instead.
                if verdict.is_success() {
                    verdict = StepVerdict::failed(problem, true);
                }
                BTreeMap::new()
            }
        };
        (verdict, usage, outputs)
    }

    async fn try_once(
        &mut self,
        sandbox: &mut dyn Sandbox,
        planned: &mut Planned<'_>,
        is_last_try: bool,
        deadline: Deadline,
    ) -> (StepVerdict, Option<Usage>) {
        let (step, index) = (planned.step, planned.index);
        let mut binary = None;
        if let StepCommand::Binary(wanted) = &*planned.command {
            match self.fetch(wanted, deadline).await {
                Ok(cached) => binary = Some(cached),
                Err(verdict) => return (verdict, None),
            }
        }
        // The end of the last step takes the job directory with it, even the end of a start that failed: what earlier
        // steps left there must outlast a start that may have to be repeated.
        let last = planned.last && is_last_try && (index == 0 || binary.is_none());
        let plan = StepPlan {
            program: program(&planned.command, binary.as_ref()),
            env: self.environment(sandbox, Some((index, step)), planned.declared.as_ref()),
            workdir: planned.workdir.clone(),
            last,
        };
        let mut busy = 0;
        loop {
            return match self.execute(sandbox, Begin::Step(plan.clone()), deadline, &mut planned.capture).await {
                Ok(StepEnd::Ended(mut verdict, usage)) => {
                    acts::explain(sandbox, &mut verdict);
                    (verdict, Some(usage))
                }
                Ok(StepEnd::NotStarted(failed))
                    if is_busy(&failed) && busy < BUSY_TRIES && (index == 0 || binary.is_some()) =>
                {
                    busy += 1;
                    tokio::time::sleep(BUSY_WAIT).await;
                    continue;
                }
                Ok(StepEnd::NotStarted(failed)) => (verdict::of_failed_start(&failed), None),
                Ok(StepEnd::Nothing) => (StepVerdict::failed("nothing was run", false), None),
                Err(error) => (lost(&error), None),
            };
        }
    }

    /// Takes what the step handed over: variables go to later steps, outputs are returned.
    pub(super) async fn taken(&mut self, sandbox: &mut dyn Sandbox) -> Result<BTreeMap<String, String>, String> {
        let Some(variables) = &mut self.variables else { return Ok(BTreeMap::new()) };
        let mut outputs = BTreeMap::new();
        for kind in [Handover::Variables, Handover::Outputs] {
            let Some(content) = sandbox.take_handover(kind, handover::MOST).await.map_err(|error| error.to_string())?
            else {
                continue;
            };
            let found = handover::parse(kind, &content)?;
            match kind {
                Handover::Variables => variables.hand_over(found),
                Handover::Outputs => outputs = found,
            }
        }
        Ok(outputs)
    }
}

const BUSY_TRIES: u32 = 100;
const BUSY_WAIT: Duration = Duration::from_millis(5);
