//! The model's jobs and what happens to them, each transition in its plainest form: everything is found by looking at all jobs.

use std::collections::{BTreeMap, BTreeSet};

use executr_api::{AttemptStatus, Fence, JobState, Outcome};
use executr_spec::{JobId, Priority, QueueName, RequirementClass, Tenant, Timestamp};

use super::job::Job;
use crate::lifecycle::{Next, after, attempt_status, lost_too_often};
use crate::{
    Advanced, CancelAnswer, Cancelled, FinishAnswer, Finished, MAX_CLASSES_PER_QUEUE, NewJob, Readied, RenewAnswer,
    StoreError, SubmitAnswer, Submitted,
};

/// What became ready, counted.
#[derive(Debug, Default)]
pub(super) struct ReadyCount(BTreeMap<(QueueName, RequirementClass), u32>);

impl ReadyCount {
    fn add(&mut self, job: &Job) {
        *self.0.entry((job.new.queue.clone(), job.new.class.clone())).or_default() += 1;
    }

    fn into_answer(self) -> Vec<Readied> {
        self.0.into_iter().map(|((queue, class), jobs)| Readied { queue, class, jobs }).collect()
    }
}

/// All jobs by submission number.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    pub(super) jobs: BTreeMap<u64, Job>,
    pub(super) numbers: BTreeMap<JobId, u64>,
    pub(super) last_number: u64,
    pub(super) turns: BTreeMap<(QueueName, Priority, Tenant), u64>,
    pub(super) last_turn: u64,
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
    fn make_ready(&mut self, number: u64, readied: &mut ReadyCount) {
        let Some(job) = self.jobs.get(&number) else { return };
        let held = self.permits(&job.new);
        let allowed = job.new.concurrency.as_ref().is_none_or(|(_, limit)| held < *limit as usize);
        let Some(job) = self.jobs.get_mut(&number) else { return };
        job.record.due_at = None;
        job.permit = allowed && job.new.concurrency.is_some();
        job.record.state = if allowed { JobState::Ready } else { JobState::Blocked };
        if allowed {
            readied.add(job);
        }
    }

    /// Takes the job's permit back and lets blocked ones have it.
    fn release(&mut self, number: u64, readied: &mut ReadyCount) {
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
            self.make_ready(first, readied);
            if self.jobs.get(&first).is_some_and(|job| job.record.state == JobState::Blocked) {
                return;
            }
        }
    }

    /// Makes the job final.
    fn end(&mut self, number: u64, state: JobState, now: Timestamp, readied: &mut ReadyCount) {
        if let Some(job) = self.jobs.get_mut(&number) {
            job.record.state = state;
            job.record.due_at = None;
            job.record.completed_at = Some(now);
        }
        self.release(number, readied);
    }

    pub(super) fn live_classes(&self, queue: &QueueName) -> BTreeMap<RequirementClass, bool> {
        let mut classes = BTreeMap::new();
        for job in self.jobs.values().filter(|job| job.new.queue == *queue && !job.record.state.is_final()) {
            *classes.entry(job.new.class.clone()).or_default() |= job.is_takeable();
        }
        classes
    }

    pub(super) fn submit(&mut self, jobs: Vec<NewJob>, now: Timestamp) -> Result<SubmitAnswer, StoreError> {
        let mut readied = ReadyCount::default();
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
                self.make_ready(number, &mut readied);
            }
            answers.push(Submitted { id, state: self.jobs[&number].record.state, existing: false, created_at: now });
        }
        Ok(SubmitAnswer { jobs: answers, readied: readied.into_answer() })
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
        let mut readied = ReadyCount::default();
        let mut next_at = None;
        match next {
            Next::Final(state) => self.end(number, state, now, &mut readied),
            Next::Retry(wait) if wait.is_zero() => {
                job.record.state = JobState::Ready;
                readied.add(job);
            }
            Next::Retry(wait) => {
                next_at = Some(now.plus(wait));
                job.record.state = JobState::Scheduled;
                job.record.due_at = next_at;
                self.release(number, &mut readied);
            }
        }
        let state = self.jobs[&number].record.state;
        FinishAnswer::Taken(Finished {
            state,
            started_at,
            worker,
            next_at,
            readied: readied.into_answer(),
            run: crate::RunProgress::default(),
        })
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
        let mut readied = ReadyCount::default();
        if job.record.state == JobState::Cancelling {
            self.end(number, JobState::Cancelled, now, &mut readied);
        } else {
            job.record.state = JobState::Ready;
            readied.add(job);
        }
        let state = self.jobs[&number].record.state;
        FinishAnswer::Taken(Finished {
            state,
            started_at,
            worker,
            next_at: None,
            readied: readied.into_answer(),
            run: crate::RunProgress::default(),
        })
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
            state @ (JobState::Running | JobState::Cancelling) => {
                if state == JobState::Running {
                    job.record.state = JobState::Cancelling;
                    job.record.reclaimable = false;
                    job.record.error_message = Some(reason.to_owned());
                }
                match job.attempts.last() {
                    Some(attempt) => {
                        CancelAnswer::Cancelling { fence: attempt.record.fence, worker: attempt.record.worker.clone() }
                    }
                    None => CancelAnswer::NotFound,
                }
            }
            _ => {
                job.record.error_message = Some(reason.to_owned());
                let mut readied = ReadyCount::default();
                self.end(number, JobState::Cancelled, now, &mut readied);
                CancelAnswer::Cancelled(Cancelled {
                    readied: readied.into_answer(),
                    run: crate::RunProgress::default(),
                })
            }
        }
    }

    pub(super) fn advance(&mut self, may_reclaim: bool, limit: usize, now: Timestamp) -> Advanced {
        let mut readied = ReadyCount::default();
        let mut answer = Advanced::default();
        if may_reclaim {
            let over = self.over(|job| job.lease_deadline(), now);
            answer.more |= over.len() > limit;
            for number in over.into_iter().take(limit) {
                self.lease_ran_out(number, now, &mut answer, &mut readied);
            }
        }
        let due = self.over(|job| job.record.due_at, now);
        answer.more |= due.len() > limit;
        for number in due.into_iter().take(limit) {
            self.make_ready(number, &mut readied);
        }
        answer.readied = readied.into_answer();
        answer.next_at = self
            .jobs
            .values()
            .flat_map(|job| [job.record.due_at, job.lease_deadline().filter(|_| may_reclaim)])
            .flatten()
            .min();
        answer
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

    fn lease_ran_out(&mut self, number: u64, now: Timestamp, answer: &mut Advanced, readied: &mut ReadyCount) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
        let Some(attempt) = job.attempts.last() else { return };
        let (fence, worker) = (attempt.record.fence, attempt.record.worker.clone());
        let state = if job.record.state == JobState::Cancelling {
            job.end_attempt(AttemptStatus::Lost, now);
            JobState::Cancelled
        } else if job.record.lost_leases + 1 < crate::MAX_LOST_LEASES {
            job.record.reclaimable = true;
            readied.add(job);
            answer.reclaimable.push((fence.job, worker));
            return;
        } else {
            job.end_attempt(AttemptStatus::Lost, now);
            job.record.error_message = Some(lost_too_often(job.record.lost_leases));
            JobState::Failed
        };
        self.end(number, state, now, readied);
        answer.ended.push((fence.job, state, fence, worker));
    }

    pub(super) fn delete_final(&mut self, before: Timestamp, limit: usize) -> u64 {
        let mut ended: Vec<_> = self
            .jobs
            .iter()
            .filter_map(|(number, job)| Some((job.record.completed_at?, *number)))
            .filter(|(at, _)| *at < before)
            .collect();
        ended.sort_unstable();
        ended.truncate(limit);
        for (_, number) in &ended {
            if let Some(job) = self.jobs.remove(number) {
                self.numbers.remove(&job.new.id);
            }
        }
        ended.len() as u64
    }
}

fn same_key(job: &NewJob, tenant: &Tenant, key: &str) -> bool {
    job.tenant == *tenant && job.concurrency.as_ref().is_some_and(|(own, _)| own == key)
}
