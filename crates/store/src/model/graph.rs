//! How the jobs of a run follow from each other, by looking at the whole run again after each step.

use std::collections::BTreeMap;

use executr_api::{JobState, Need, NeedResult, RunCancel, RunEventKind, RunState};
use executr_spec::{RunId, Timestamp};

use super::artifacts::by_name;
use super::job::Job;
use super::queue::{Followed, Queue};
use super::run::{Place, Run};
use crate::lifecycle::graph::{
    Before, CONDITION_SAID_NO, Stop, Turn, after_needs, end_of_run, first_failure, is_stopped, outlives_cancel,
    why_stopped,
};
use crate::{Decision, GateVerdict, NewRun, Question, RunAnswer, RunEnd, RunProgress, StoreError};

/// The next thing that happens in a run by itself.
enum Step {
    /// The job was done in an earlier run.
    Done,
    Turn(Turn),
}

impl Queue {
    pub(super) fn submit_run(&mut self, new: NewRun, now: Timestamp) -> Result<RunAnswer, StoreError> {
        let earlier = new.idempotency_key.as_ref().and_then(|key| {
            let same = |run: &&Run| run.new.tenant == new.tenant && run.new.idempotency_key.as_ref() == Some(key);
            self.runs.values().find(same)
        });
        if let Some(run) = earlier {
            return Ok(RunAnswer { id: run.new.id, existing: true, progress: RunProgress::default() });
        }
        if self.find_run(new.id).is_some() {
            return Err(StoreError::Database(format!("the run {} is there already", new.id)));
        }
        for job in &new.jobs {
            if self.numbers.contains_key(&job.job.id) {
                return Err(StoreError::Database(format!("the job {} is there already", job.job.id)));
            }
        }
        // Those that were done are final at once, and ask for nothing.
        self.check_classes(new.jobs.iter().map(|job| job.done.is_none().then_some(&job.job)))?;
        self.last_number += 1;
        let (id, number) = (new.id, self.last_number);
        for (index, job) in (0..).zip(&new.jobs) {
            self.last_number += 1;
            self.numbers.insert(job.job.id, self.last_number);
            let mut recorded = Job::new(job.job.clone(), now);
            recorded.record.state = JobState::Waiting;
            recorded.place = Some(Place { run: number, index });
            self.jobs.insert(self.last_number, recorded);
        }
        let mut followed = Followed::default();
        let mut run = Run::new(new, now);
        run.tell(RunEventKind::RunCreated, now, &mut followed.run);
        self.runs.insert(number, run);
        self.settle(number, now, &mut followed);
        Ok(RunAnswer { id, existing: false, progress: self.followed_alone(followed) })
    }

    pub(super) fn decide(&mut self, decisions: Vec<Decision>, now: Timestamp) -> RunProgress {
        let mut followed = Followed::default();
        for Decision { job, run_cancelling, verdict } in decisions {
            let Some(&number) = self.numbers.get(&job) else { continue };
            let Some(place) = self.jobs[&number].place.filter(|place| self.is_asked(*place)) else { continue };
            if run_cancelling != self.stop(place.run).is_asked() {
                followed.run.asked.push(job);
                continue;
            }
            match verdict {
                GateVerdict::Run => {
                    self.job_at(place).asked = false;
                    self.make_ready(number, &mut followed);
                }
                GateVerdict::Skip => {
                    self.end_at(place, JobState::Skipped, Some(CONDITION_SAID_NO.to_owned()), now, &mut followed);
                }
                GateVerdict::Fail(message) => self.end_at(place, JobState::Failed, Some(message), now, &mut followed),
            }
            self.settle(place.run, now, &mut followed);
            self.release_all(&mut followed);
        }
        self.followed_alone(followed)
    }

    pub(super) fn cancel_run(
        &mut self,
        id: RunId,
        how: RunCancel,
        reason: &str,
        now: Timestamp,
    ) -> Option<(RunState, RunProgress)> {
        let (number, run) = self.find_run(id)?;
        let mut followed = Followed::default();
        if run.state == RunState::Running || (how == RunCancel::AtOnce && run.state == RunState::Cancelling) {
            self.stop_run(number, how, reason, now, &mut followed);
        }
        Some((self.runs[&number].state, self.followed_alone(followed)))
    }

    /// Asks a run to stop that isn't final.
    pub(super) fn stop_run(
        &mut self,
        number: u64,
        how: RunCancel,
        reason: &str,
        now: Timestamp,
        followed: &mut Followed,
    ) {
        let Some(run) = self.runs.get_mut(&number) else { return };
        let at_once = how == RunCancel::AtOnce;
        run.at_once |= at_once;
        if run.state == RunState::Running {
            run.state = RunState::Cancelling;
            run.message = Some(reason.to_owned());
            run.tell(RunEventKind::RunCancelling { reason: reason.to_owned() }, now, &mut followed.run);
        }
        let reason = run.message.clone().unwrap_or_default();
        for place in self.places(number) {
            let gate = self.runs[&number].job(place.index).gate;
            let job = self.job_at(place);
            let is_asked = match job.record.state {
                JobState::Running => at_once || !outlives_cancel(gate),
                JobState::Cancelling => at_once,
                _ => false,
            };
            if is_asked && let Some(asked) = job.ask_to_stop(&reason) {
                if at_once {
                    followed.run.at_once.push(asked)
                } else {
                    followed.run.cancelling.push(asked)
                };
            }
        }
        self.settle(number, now, followed);
        self.release_all(followed);
    }

    pub(super) fn job_at(&mut self, place: Place) -> &mut Job {
        self.jobs.get_mut(&place.number()).expect("a run's jobs are there as long as it is")
    }

    /// What happened before a job: found for all that come before it, in their order.
    fn before(&self, place: Place) -> Before {
        let run = &self.runs[&place.run];
        let mut before: Vec<Before> = Vec::new();
        for index in 0..=place.index {
            let job = run.job(index);
            // What was done in an earlier run is done, whatever came before it.
            let needs = if job.done.is_some() { &[] } else { &job.needs[..] };
            before.push(needs.iter().fold(Before::default(), |sum, need| {
                let state = self.state_at(Place { index: *need, ..place });
                sum.and(before[*need as usize].with(state, run.job(*need).continue_on_error))
            }));
        }
        before.pop().unwrap_or_default()
    }

    fn needs_are_final(&self, place: Place) -> bool {
        let needs = &self.runs[&place.run].job(place.index).needs;
        needs.iter().all(|need| self.state_at(Place { index: *need, ..place }).is_final())
    }

    fn is_asked(&self, place: Place) -> bool {
        let job = &self.jobs[&place.number()];
        job.asked && job.record.state == JobState::Waiting
    }

    /// The first place for which there is something to do, and what.
    fn next_step(&self, number: u64) -> Option<(Place, Step)> {
        let run = &self.runs[&number];
        let stop = self.stop(number);
        self.places(number).find_map(|place| {
            let (planned, job) = (run.job(place.index), &self.jobs[&place.number()]);
            let state = job.record.state;
            if state == JobState::Waiting && planned.done.is_some() {
                return Some((place, Step::Done));
            }
            if stop != Stop::AtOnce && !self.needs_are_final(place) {
                return None;
            }
            if is_stopped(planned.gate, state, job.record.attempt, stop) && (state != JobState::Waiting || job.asked) {
                return Some((place, Step::Turn(Turn::Cancel)));
            }
            let its_turn = state == JobState::Waiting && !job.asked;
            its_turn.then(|| (place, Step::Turn(after_needs(planned.gate, self.before(place), stop))))
        })
    }

    /// Does all that follows in a run, and ends it when nothing is left.
    pub(super) fn settle(&mut self, number: u64, now: Timestamp, followed: &mut Followed) {
        while let Some((place, step)) = self.next_step(number) {
            match step {
                Step::Done => {
                    let done = self.runs[&number].job(place.index).done.clone().unwrap_or_default();
                    self.hand_on(place, done.handed, now);
                    for (tree, blobs) in done.kept {
                        self.kept.entry((place.number(), tree)).or_default().extend(blobs);
                    }
                    self.end_at(place, JobState::Completed, None, now, followed);
                }
                Step::Turn(Turn::Go) => self.make_ready(place.number(), followed),
                Step::Turn(Turn::Ask) => {
                    let job = self.job_at(place);
                    job.asked = true;
                    followed.run.asked.push(job.record.id);
                }
                Step::Turn(Turn::Skip(why)) => {
                    self.end_at(place, JobState::Skipped, Some(why.to_owned()), now, followed);
                }
                Step::Turn(Turn::Cancel) => {
                    let why = why_stopped(self.stop(number), self.runs[&number].message.as_deref());
                    self.end_at(place, JobState::Cancelled, Some(why), now, followed);
                }
            }
        }
        self.end_run(number, now, followed);
    }

    /// Ends a job that no worker has.
    fn end_at(
        &mut self,
        place: Place,
        state: JobState,
        message: Option<String>,
        now: Timestamp,
        followed: &mut Followed,
    ) {
        let job = self.job_at(place);
        job.record.error_message = message;
        followed.run.ended.push((job.record.id, state));
        self.end_job(place.number(), state, now, followed);
    }

    /// What the end of a job says in its run. What follows from it is not looked at.
    pub(super) fn tell_end(&mut self, place: Place, now: Timestamp, followed: &mut Followed) {
        let record = self.jobs[&place.number()].record.clone();
        let first = self.failures(place.run) == 1;
        let Some(run) = self.runs.get_mut(&place.run) else { return };
        let (name, taken) = (run.job(place.index).name.clone(), run.job(place.index).continue_on_error);
        if record.state == JobState::Failed && !taken && first && run.state == RunState::Running {
            run.message = Some(first_failure(&name));
        }
        let ended = RunEventKind::JobEnded {
            job: name,
            state: record.state,
            attempt: record.attempt,
            exit_code: record.exit_code,
            message: record.error_message,
        };
        run.tell(ended, now, &mut followed.run);
        self.release_workspace(place, followed);
    }

    fn end_run(&mut self, number: u64, now: Timestamp, followed: &mut Followed) {
        let done = self.places(number).all(|place| self.state_at(place).is_final());
        if !done || self.runs[&number].state.is_final() {
            return;
        }
        let cancelled = self.places(number).filter(|place| self.state_at(*place) == JobState::Cancelled).count();
        let failed = self.failures(number);
        let Some(run) = self.runs.get_mut(&number) else { return };
        run.state = end_of_run(run.state == RunState::Cancelling, failed, cancelled as u64);
        run.completed_at = Some(now);
        run.tell(RunEventKind::RunEnded { state: run.state }, now, &mut followed.run);
        let (created_at, completed_at) = (run.created_at, now);
        followed.run.over.push(RunEnd { run: run.new.id, state: run.state, created_at, completed_at });
    }

    /// The direct needs of a job, all of them final.
    pub(super) fn needs_of(&self, place: Place) -> BTreeMap<String, Need> {
        let run = &self.runs[&place.run];
        let need = |index: &u32| {
            let job = &self.jobs[&Place { index: *index, ..place }.number()];
            let result = NeedResult::of(job.record.state)?;
            Some((run.job(*index).name.clone(), Need { result, outputs: job.handed.clone() }))
        };
        run.job(place.index).needs.iter().filter_map(need).collect()
    }

    pub(super) fn questions(&self) -> impl Iterator<Item = Question> {
        let asked = self.jobs.values().filter_map(|job| Some((job, job.place?)));
        asked.filter(|(_, place)| self.is_asked(*place)).map(|(job, place)| {
            let before = self.before(place);
            Question {
                job: job.record.id,
                run: self.runs[&place.run].new.id,
                spec: job.new.spec.clone(),
                index: place.index,
                needs: self.needs_of(place),
                failed_before: before.failed,
                cancelled_before: before.cancelled,
                run_cancelling: self.stop(place.run).is_asked(),
            }
        })
    }

    /// Takes over what a job handed on.
    pub(super) fn hand_on(&mut self, place: Place, handed: crate::Handed, now: Timestamp) {
        for artifact in by_name(handed.artifacts) {
            self.keep(place, artifact, now);
        }
        self.job_at(place).handed = handed.outputs;
    }
}
