//! The model's jobs and what happens to them, each transition in its plainest form: everything is found by looking at all jobs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use executr_api::{AttemptStatus, Fence, JobState, Outcome, RunCancel, RunEventKind, RunState};
use executr_spec::{Digest, JobId, Priority, QueueName, RequirementClass, Tenant, Timestamp};

use super::artifacts::ArtifactKey;
use super::job::Job;
use super::run::Run;
use crate::lifecycle::graph::took_too_long;
use crate::lifecycle::{Next, after, attempt_status, fails_run, lost_too_often};
use crate::{
    Advanced, ArtifactRecord, CancelAnswer, Cancelled, FinishAnswer, Finished, Handed, MAX_CLASSES_PER_QUEUE, NewJob,
    Readied, RenewAnswer, RunProgress, StoreError, SubmitAnswer, Submitted,
};

/// What became ready, counted.
#[derive(Debug, Default)]
pub(super) struct ReadyCount(BTreeMap<(QueueName, RequirementClass), u32>);

impl ReadyCount {
    pub(super) fn add(&mut self, job: &Job) {
        *self.0.entry((job.new.queue.clone(), job.new.class.clone())).or_default() += 1;
    }

    fn into_answer(self) -> Vec<Readied> {
        self.0.into_iter().map(|((queue, class), jobs)| Readied { queue, class, jobs }).collect()
    }
}

/// What follows from one item of a command.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// What became ready; not in `run`.
    pub(super) readied: ReadyCount,
    pub(super) run: RunProgress,
    /// Jobs whose permits are to be given back.
    freed: Vec<u64>,
}

/// All jobs by submission number.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    pub(super) jobs: BTreeMap<u64, Job>,
    pub(super) numbers: BTreeMap<JobId, u64>,
    pub(super) last_number: u64,
    pub(super) turns: BTreeMap<(QueueName, Priority, Tenant), u64>,
    pub(super) last_turn: u64,
    /// By number: those of its jobs follow.
    pub(super) runs: BTreeMap<u64, Run>,
    pub(super) artifacts: BTreeMap<ArtifactKey, ArtifactRecord>,
    /// Blobs kept for artifacts, by the job's number and the tree.
    pub(super) kept: BTreeMap<(u64, Digest), BTreeSet<Digest>>,
}

impl Queue {
    pub(super) fn job(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(self.numbers.get(&id)?)
    }

    pub(super) fn job_mut(&mut self, id: JobId) -> Option<&mut Job> {
        self.jobs.get_mut(self.numbers.get(&id)?)
    }

    /// How many permits of the job's key are held.
    fn permits(&self, job: &NewJob) -> usize {
        let Some((key, _)) = &job.concurrency else { return 0 };
        self.jobs.values().filter(|other| other.permit && same_key(&other.new, &job.tenant, key)).count()
    }

    /// Makes the job ready, or blocked when its key is taken. It holds no permit before.
    pub(super) fn make_ready(&mut self, number: u64, followed: &mut Followed) {
        let Some(job) = self.jobs.get(&number) else { return };
        let held = self.permits(&job.new);
        let allowed = job.new.concurrency.as_ref().is_none_or(|(_, limit)| held < *limit as usize);
        if allowed {
            self.reclass(number);
        }
        let Some(job) = self.jobs.get_mut(&number) else { return };
        job.record.due_at = None;
        job.permit = allowed && job.new.concurrency.is_some();
        job.record.state = if allowed { JobState::Ready } else { JobState::Blocked };
        if allowed {
            followed.readied.add(job);
        }
    }

    /// Gives the permits of jobs that ended back.
    pub(super) fn release_all(&mut self, followed: &mut Followed) {
        for number in std::mem::take(&mut followed.freed) {
            self.release(number, followed);
        }
    }

    /// What followed from a command that has no other place for what became ready.
    pub(super) fn followed_alone(&mut self, mut followed: Followed) -> RunProgress {
        self.release_all(&mut followed);
        RunProgress { readied: followed.readied.into_answer(), ..followed.run }
    }

    /// Takes the job's permit back and lets blocked ones have it.
    fn release(&mut self, number: u64, followed: &mut Followed) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
        if !std::mem::take(&mut job.permit) {
            return;
        }
        let new = job.new.clone();
        let Some((key, _)) = &new.concurrency else { return };
        loop {
            let first = self
                .jobs
                .iter()
                .filter(|(_, job)| job.record.state == JobState::Blocked && same_key(&job.new, &new.tenant, key))
                .map(|(number, job)| (job.new.priority, *number))
                .min();
            let Some((_, first)) = first else { return };
            self.make_ready(first, followed);
            if self.jobs.get(&first).is_some_and(|job| job.record.state == JobState::Blocked) {
                return;
            }
        }
    }

    /// Makes the job final.
    pub(super) fn end_job(&mut self, number: u64, state: JobState, now: Timestamp, followed: &mut Followed) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
        job.record.state = state;
        job.record.due_at = None;
        job.record.completed_at = Some(now);
        followed.freed.push(number);
        if let Some(place) = job.place {
            self.tell_end(place, now, followed);
        }
    }

    /// Makes the job final, and does what follows.
    fn end(&mut self, number: u64, state: JobState, now: Timestamp, followed: &mut Followed) {
        self.end_job(number, state, now, followed);
        if let Some(place) = self.jobs.get(&number).and_then(|job| job.place) {
            self.settle(place.run, now, followed);
        }
        self.release_all(followed);
    }

    /// There will be another attempt of the job.
    pub(super) fn tell_retry(
        &mut self,
        number: u64,
        attempt: u32,
        message: Option<String>,
        now: Timestamp,
        followed: &mut Followed,
    ) {
        let Some(place) = self.jobs.get(&number).and_then(|job| job.place) else { return };
        let Some(run) = self.runs.get_mut(&place.run) else { return };
        let job = run.job(place.index).name.clone();
        run.tell(RunEventKind::JobRetrying { job, attempt, message }, now, &mut followed.run);
    }

    pub(super) fn live_classes(&self, queue: &QueueName) -> BTreeMap<RequirementClass, bool> {
        let mut classes = BTreeMap::new();
        for job in self.jobs.values().filter(|job| job.new.queue == *queue && !job.record.state.is_final()) {
            *classes.entry(job.new.class.clone()).or_default() |= job.is_takeable();
        }
        classes
    }

    pub(super) fn submit(&mut self, jobs: Vec<NewJob>, now: Timestamp) -> Result<SubmitAnswer, StoreError> {
        let mut followed = Followed::default();
        let mut answers = Vec::with_capacity(jobs.len());
        for (index, new) in jobs.into_iter().enumerate() {
            let earlier = new.idempotency_key.as_ref().and_then(|key| {
                self.jobs
                    .values()
                    .find(|job| job.new.tenant == new.tenant && job.new.idempotency_key.as_ref() == Some(key))
            });
            if let Some(Job { record, .. }) = earlier {
                answers.push(Submitted {
                    id: record.id,
                    state: record.state,
                    existing: true,
                    created_at: record.created_at,
                });
                continue;
            }
            if self.numbers.contains_key(&new.id) {
                return Err(StoreError::Database(format!("the job {} is there already", new.id)));
            }
            let mut classes: BTreeSet<_> = self.live_classes(&new.queue).into_keys().collect();
            classes.insert(new.class.clone());
            if classes.len() > MAX_CLASSES_PER_QUEUE {
                return Err(StoreError::TooManyClasses { index, queue: new.queue });
            }
            self.last_number += 1;
            let number = self.last_number;
            self.numbers.insert(new.id, number);
            let (id, due) = (new.id, new.run_at.filter(|at| *at > now));
            let mut job = Job::new(new, now);
            job.record.due_at = due;
            self.jobs.insert(number, job);
            if due.is_none() {
                self.make_ready(number, &mut followed);
            }
            answers.push(Submitted { id, state: self.jobs[&number].record.state, existing: false, created_at: now });
        }
        Ok(SubmitAnswer { jobs: answers, readied: followed.readied.into_answer() })
    }

    /// Refuses the first job that would bring one class too many into its queue.
    pub(super) fn check_classes<'a>(&self, jobs: impl Iterator<Item = Option<&'a NewJob>>) -> Result<(), StoreError> {
        let mut queues: BTreeMap<&QueueName, BTreeSet<RequirementClass>> = BTreeMap::new();
        for (index, job) in jobs.enumerate() {
            let Some(job) = job else { continue };
            let live = || self.live_classes(&job.queue).into_keys().collect();
            let classes = queues.entry(&job.queue).or_insert_with(live);
            if classes.insert(job.class.clone()) && classes.len() > MAX_CLASSES_PER_QUEUE {
                return Err(StoreError::TooManyClasses { index, queue: job.queue.clone() });
            }
        }
        Ok(())
    }

    pub(super) fn finish(&mut self, result: executr_api::AttemptResult, now: Timestamp) -> FinishAnswer {
        let fence = result.fence;
        let Some(&number) = self.numbers.get(&fence.job) else { return FinishAnswer::LeaseLost };
        let Some(job) = self.jobs.get_mut(&number) else { return FinishAnswer::LeaseLost };
        let state = job.record.state;
        if job.held(&fence).is_none() {
            return match job.attempt_status(&fence) {
                Some(AttemptStatus::Completed | AttemptStatus::Failed | AttemptStatus::Cancelled) => {
                    FinishAnswer::Before(state)
                }
                _ => FinishAnswer::LeaseLost,
            };
        }
        let cancelling = state == JobState::Cancelling;
        let next = after(&result, cancelling, job.record.failures, job.new.max_retries, &job.new.backoff);
        let its_runs = fails_run(&result, next);
        let Some((attempt, _)) = job.held(&fence) else { return FinishAnswer::LeaseLost };
        if let Some(chunk) = &result.output {
            attempt.log.append_last(chunk);
        }
        let status = attempt_status(result.outcome, cancelling);
        attempt.record.exit_code = result.exit_code;
        attempt.record.error_message.clone_from(&result.error_message);
        attempt.record.usage = result.usage;
        attempt.record.steps = result.steps;
        let (started_at, worker) = (attempt.record.started_at, attempt.record.worker.clone());
        job.end_attempt(status, now);
        job.record.exit_code = result.exit_code;
        job.record.usage = result.usage;
        if status == AttemptStatus::Failed {
            job.record.failures += 1;
        }
        if result.outcome == Outcome::Succeeded {
            job.record.error_message = None;
        } else if !cancelling {
            job.record.error_message = result.error_message;
        }
        let handed = Handed { outputs: result.outputs, artifacts: result.artifacts };
        let mut followed = Followed::default();
        let mut next_at = None;
        if let Next::Retry(wait) = next {
            job.record.state = if wait.is_zero() { JobState::Ready } else { JobState::Scheduled };
            next_at = (!wait.is_zero()).then(|| now.plus(wait));
            job.record.due_at = next_at;
            let message = job.record.error_message.clone();
            self.tell_retry(number, fence.attempt, message, now, &mut followed);
        }
        match next {
            Next::Final(state) => {
                if let Some(place) = self.jobs[&number].place {
                    self.hand_on(place, handed, now);
                    if its_runs && let Some(run) = self.runs.get_mut(&place.run) {
                        run.new.fail_fast = true;
                        run.new.jobs[place.index as usize].continue_on_error = false;
                    }
                }
                self.end(number, state, now, &mut followed);
            }
            Next::Retry(wait) if wait.is_zero() => {
                self.reclass(number);
                followed.readied.add(&self.jobs[&number]);
            }
            Next::Retry(_) => self.release(number, &mut followed),
        }
        self.let_go(number);
        let state = self.jobs[&number].record.state;
        let readied = followed.readied.into_answer();
        FinishAnswer::Taken(Finished { state, started_at, worker, next_at, readied, run: followed.run })
    }

    pub(super) fn give_back(&mut self, fence: Fence, now: Timestamp) -> FinishAnswer {
        let Some(&number) = self.numbers.get(&fence.job) else { return FinishAnswer::LeaseLost };
        let Some(job) = self.jobs.get_mut(&number) else { return FinishAnswer::LeaseLost };
        let Some((attempt, _)) = job.held(&fence) else {
            return match job.attempt_status(&fence) {
                Some(AttemptStatus::Returned) => FinishAnswer::Before(job.record.state),
                _ => FinishAnswer::LeaseLost,
            };
        };
        let (started_at, worker) = (attempt.record.started_at, attempt.record.worker.clone());
        job.end_attempt(AttemptStatus::Returned, now);
        let mut followed = Followed::default();
        if job.record.state == JobState::Cancelling {
            self.end(number, JobState::Cancelled, now, &mut followed);
        } else {
            job.record.state = JobState::Ready;
            self.reclass(number);
            followed.readied.add(&self.jobs[&number]);
            self.tell_retry(number, fence.attempt, None, now, &mut followed);
        }
        self.let_go(number);
        let state = self.jobs[&number].record.state;
        let readied = followed.readied.into_answer();
        FinishAnswer::Taken(Finished { state, started_at, worker, next_at: None, readied, run: followed.run })
    }

    pub(super) fn renew(&mut self, renewal: crate::Renewal, now: Timestamp) -> RenewAnswer {
        let Some(job) = self.job_mut(renewal.fence.job) else { return RenewAnswer::LeaseLost };
        let Some((_, live)) = job.held(&renewal.fence) else { return RenewAnswer::LeaseLost };
        live.period = renewal.lease;
        live.expires_at = now.plus(renewal.lease);
        let expires_at = live.expires_at;
        job.record.reclaimable = false;
        job.record.renewed_at = Some(now);
        RenewAnswer::Renewed { expires_at, cancelling: job.record.state == JobState::Cancelling }
    }

    pub(super) fn cancel(&mut self, id: JobId, pending_only: bool, reason: &str, now: Timestamp) -> CancelAnswer {
        let Some(&number) = self.numbers.get(&id) else { return CancelAnswer::NotFound };
        let Some(job) = self.jobs.get_mut(&number) else { return CancelAnswer::NotFound };
        match job.record.state {
            state if state.is_final() => CancelAnswer::Final(state),
            JobState::Running | JobState::Cancelling if pending_only => CancelAnswer::Running,
            JobState::Running | JobState::Cancelling => match job.ask_to_stop(reason) {
                Some((fence, worker)) => CancelAnswer::Cancelling { fence, worker },
                None => CancelAnswer::NotFound,
            },
            _ => {
                job.record.error_message = Some(reason.to_owned());
                let mut followed = Followed::default();
                self.end(number, JobState::Cancelled, now, &mut followed);
                CancelAnswer::Cancelled(Cancelled { readied: followed.readied.into_answer(), run: followed.run })
            }
        }
    }

    pub(super) fn advance(&mut self, may_reclaim: bool, limit: usize, now: Timestamp) -> Advanced {
        let mut followed = Followed::default();
        let mut answer = Advanced::default();
        if may_reclaim {
            let over = self.over(|job| job.lease_deadline(), now);
            answer.more |= over.len() > limit;
            for number in over.into_iter().take(limit) {
                self.lease_ran_out(number, now, &mut answer, &mut followed);
            }
        }
        let late = self.late_runs(now);
        answer.more |= late.len() > limit;
        for (number, timeout) in late.into_iter().take(limit) {
            self.stop_run(number, RunCancel::InOrder, &took_too_long(timeout), now, &mut followed);
        }
        let due = self.over(|job| job.record.due_at, now);
        answer.more |= due.len() > limit;
        for number in due.into_iter().take(limit) {
            self.make_ready(number, &mut followed);
        }
        answer.readied = followed.readied.into_answer();
        answer.run = followed.run;
        let of_jobs = self.jobs.values().flat_map(|job| {
            let of_lease = job.lease_deadline().filter(|_| may_reclaim);
            [job.record.due_at, of_lease]
        });
        let of_runs = self.runs.values().filter(|run| run.state == RunState::Running).map(Run::deadline);
        answer.next_at = of_jobs.chain(of_runs).flatten().min();
        answer
    }

    /// The running runs whose time is over, and what they were given.
    fn late_runs(&self, now: Timestamp) -> Vec<(u64, Duration)> {
        let running = self.runs.iter().filter(|(_, run)| run.state == RunState::Running);
        let mut late: Vec<_> = running
            .filter_map(|(number, run)| Some((run.deadline()?, *number, run.new.timeout?)))
            .filter(|(at, ..)| *at <= now)
            .collect();
        late.sort_unstable();
        late.into_iter().map(|(_, number, timeout)| (number, timeout)).collect()
    }

    /// The jobs for which a time has come, in its order.
    fn over(&self, time: impl Fn(&Job) -> Option<Timestamp>, now: Timestamp) -> Vec<u64> {
        let mut over: Vec<_> = self
            .jobs
            .iter()
            .filter_map(|(number, job)| Some((time(job)?, *number)))
            .filter(|(at, _)| *at <= now)
            .collect();
        over.sort_unstable();
        over.into_iter().map(|(_, number)| number).collect()
    }

    fn lease_ran_out(&mut self, number: u64, now: Timestamp, answer: &mut Advanced, followed: &mut Followed) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
        let Some(attempt) = job.attempts.last() else { return };
        let (fence, worker) = (attempt.record.fence, attempt.record.worker.clone());
        let state = if job.record.state == JobState::Cancelling {
            job.end_attempt(AttemptStatus::Lost, now);
            JobState::Cancelled
        } else if job.record.lost_leases + 1 < crate::MAX_LOST_LEASES {
            job.record.reclaimable = true;
            self.reclass(number);
            followed.readied.add(&self.jobs[&number]);
            answer.reclaimable.push((fence.job, worker));
            return;
        } else {
            job.end_attempt(AttemptStatus::Lost, now);
            job.record.error_message = Some(lost_too_often(job.record.lost_leases));
            JobState::Failed
        };
        self.end(number, state, now, followed);
        self.let_go(number);
        answer.ended.push((fence.job, state, fence, worker));
    }

    pub(super) fn delete_final(&mut self, before: Timestamp, limit: usize) -> u64 {
        let mut ended: Vec<_> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.place.is_none())
            .filter_map(|(number, job)| Some((job.record.completed_at?, *number)))
            .filter(|(at, _)| *at < before)
            .collect();
        ended.sort_unstable();
        ended.truncate(limit);
        for (_, number) in &ended {
            self.forget(*number);
        }
        let runs = self.runs.iter().filter_map(|(number, run)| Some((run.completed_at?, *number)));
        let mut runs: Vec<_> = runs.filter(|(at, _)| *at < before).collect();
        runs.sort_unstable();
        runs.truncate(limit - ended.len());
        for (_, number) in &runs {
            for place in self.places(*number) {
                self.forget(place.number());
            }
            self.runs.remove(number);
        }
        (ended.len() + runs.len()) as u64
    }

    fn forget(&mut self, number: u64) {
        if let Some(job) = self.jobs.remove(&number) {
            self.numbers.remove(&job.new.id);
        }
    }
}

fn same_key(job: &NewJob, tenant: &Tenant, key: &str) -> bool {
    job.tenant == *tenant && job.concurrency.as_ref().is_some_and(|(own, _)| own == key)
}
