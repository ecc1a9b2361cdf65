//! What the model knows of one job.

use executr_api::{AttemptStatus, Fence, JobState};
use executr_spec::{Timestamp, WorkerId};
use std::collections::BTreeMap;
use std::time::Duration;

use super::log::Log;
use super::run::Place;
use crate::{AttemptRecord, JobRecord, NewJob};

/// A job, all of it.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// What was submitted.
    pub(super) new: NewJob,
    /// What is shown of it.
    pub(super) record: JobRecord,
    /// Its attempts, oldest first.
    pub(super) attempts: Vec<Attempt>,
    /// Its live lease, if it has one; that of the last attempt.
    pub(super) lease: Option<Live>,
    /// Whether it holds a permit of its concurrency key.
    pub(super) permit: bool,
    /// Where it stands in its run, if it is of one.
    pub(super) place: Option<Place>,
    /// Whether the coordinator is asked about it, while it waits.
    pub(super) asked: bool,
    /// The outputs that it handed on.
    pub(super) handed: BTreeMap<String, String>,
}

/// An attempt and what it printed.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) record: AttemptRecord,
    pub(super) log: Log,
}

/// How long a live lease lasts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Live {
    pub(super) expires_at: Timestamp,
    pub(super) period: Duration,
}

impl Job {
    pub(super) fn new(new: NewJob, now: Timestamp) -> Self {
        let record = JobRecord {
            id: new.id,
            tenant: new.tenant.clone(),
            job_type: new.job_type.clone(),
            queue: new.queue.clone(),
            class: new.class.clone(),
            priority: new.priority,
            state: JobState::Scheduled,
            reclaimable: false,
            created_at: now,
            started_at: None,
            completed_at: None,
            due_at: None,
            attempt: 0,
            failures: 0,
            lost_leases: 0,
            max_retries: new.max_retries,
            worker: None,
            renewed_at: None,
            exit_code: None,
            error_message: None,
            usage: None,
            output_bytes: 0,
            spec: new.spec.clone(),
        };
        Self {
            new,
            record,
            attempts: Vec::new(),
            lease: None,
            permit: false,
            place: None,
            asked: false,
            handed: BTreeMap::new(),
        }
    }

    /// Whether it stands in the ready set.
    pub(super) fn is_takeable(&self) -> bool {
        self.record.state == JobState::Ready || self.record.reclaimable
    }

    /// The last attempt and its lease, if that is the live one which `fence` names.
    pub(super) fn held(&mut self, fence: &Fence) -> Option<(&mut Attempt, &mut Live)> {
        let live = self.lease.as_mut()?;
        let attempt = self.attempts.last_mut().filter(|attempt| attempt.record.fence == *fence)?;
        Some((attempt, live))
    }

    /// How the attempt that `fence` names stands.
    pub(super) fn attempt_status(&self, fence: &Fence) -> Option<AttemptStatus> {
        self.attempts.iter().find(|attempt| attempt.record.fence == *fence).map(|attempt| attempt.record.status)
    }

    /// Ends the live lease and its attempt.
    pub(super) fn end_attempt(&mut self, status: AttemptStatus, now: Timestamp) {
        self.lease = None;
        self.record.reclaimable = false;
        self.record.renewed_at = None;
        if status == AttemptStatus::Lost {
            self.record.lost_leases += 1;
        }
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.record.status = status;
            attempt.record.ended_at = Some(now);
            attempt.record.output_bytes = attempt.log.end();
            self.record.output_bytes = attempt.log.end();
        }
    }

    /// Asks the worker that has the job to stop, if it wasn't asked yet; tells which attempt it is.
    pub(super) fn ask_to_stop(&mut self, reason: &str) -> Option<(Fence, WorkerId)> {
        let attempt = &self.attempts.last()?.record;
        if self.record.state == JobState::Running {
            self.record.state = JobState::Cancelling;
            self.record.reclaimable = false;
            self.record.error_message = Some(reason.to_owned());
        }
        Some((attempt.fence, attempt.worker.clone()))
    }

    /// When time alone does something to its lease.
    pub(super) fn lease_deadline(&self) -> Option<Timestamp> {
        let live = self.lease?;
        match self.record.state {
            JobState::Cancelling => Some(live.expires_at),
            _ if self.record.reclaimable => None,
            _ if self.record.lost_leases + 1 < crate::MAX_LOST_LEASES => Some(live.expires_at),
            _ => Some(live.expires_at.plus(live.period)),
        }
    }
}
