//! Who gets which job.

use std::collections::BTreeMap;

use executr_api::{AttemptStatus, Fence, JobState, RunEventKind};
use executr_spec::{LeaseId, Priority, QueueName, RequirementClass, Timestamp, WorkerId};
use uuid::Uuid;

use super::job::{Attempt, Live};
use super::log::Log;
use super::queue::{Followed, Queue};
use super::run::Place;
use crate::lifecycle::graph::LEASE_RAN_OUT;
use crate::{AttemptRecord, Claim, ClaimAnswer, Claimed, ClaimedRun};

impl Queue {
    pub(super) fn claim(&mut self, claim: &Claim, now: Timestamp) -> ClaimAnswer {
        let mut answer = ClaimAnswer::default();
        let mut followed = Followed::default();
        let mut met = BTreeMap::new();
        for queue in &claim.queues {
            for priority in Priority::ALL {
                while (answer.leases.len() as u64) < u64::from(claim.limit) {
                    let Some(number) = self.first(claim, queue, priority, &mut met) else { break };
                    self.hand_out(number, claim, now, &mut answer, &mut followed);
                }
            }
        }
        answer.run = self.followed_alone(followed);
        answer
    }

    /// The job of this queue and priority that is next for this worker.
    fn first(
        &self,
        claim: &Claim,
        queue: &QueueName,
        priority: Priority,
        met: &mut BTreeMap<RequirementClass, bool>,
    ) -> Option<u64> {
        self.jobs
            .iter()
            .filter(|(_, job)| job.is_takeable() && job.new.queue == *queue && job.new.priority == priority)
            .filter(|(_, job)| {
                *met.entry(job.new.class.clone()).or_insert_with(|| job.new.class.requirements().met_by(&claim.offers))
            })
            .min_by_key(|(number, job)| {
                let tenant = job.new.tenant.clone();
                let turn = self.turns.get(&(queue.clone(), priority, tenant.clone())).copied().unwrap_or(0);
                (turn, tenant, **number)
            })
            .map(|(number, _)| *number)
    }

    fn hand_out(
        &mut self,
        number: u64,
        claim: &Claim,
        now: Timestamp,
        answer: &mut ClaimAnswer,
        followed: &mut Followed,
    ) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
        if job.record.reclaimable {
            let lost = job.record.attempt;
            if let Some(attempt) = job.attempts.last() {
                answer.revoked.push((attempt.record.fence, attempt.record.worker.clone()));
            }
            job.end_attempt(AttemptStatus::Lost, now);
            self.let_go(number);
            self.tell_retry(number, lost, Some(LEASE_RAN_OUT.to_owned()), now, followed);
        }
        let Some(job) = self.jobs.get_mut(&number) else { return };
        let record = &mut job.record;
        record.attempt += 1;
        record.state = JobState::Running;
        record.started_at = Some(now);
        record.renewed_at = Some(now);
        record.worker = Some(claim.worker.clone());
        record.output_bytes = 0;
        let fence = Fence { job: record.id, attempt: record.attempt, lease: LeaseId(Uuid::new_v4()) };
        let live = Live { expires_at: now.plus(claim.lease), period: claim.lease };
        job.lease = Some(live);
        job.attempts.push(Attempt {
            record: AttemptRecord {
                fence,
                worker: claim.worker.clone(),
                ip: claim.ip.clone(),
                started_at: now,
                ended_at: None,
                status: AttemptStatus::Running,
                exit_code: None,
                error_message: None,
                usage: None,
                steps: Vec::new(),
                output_bytes: 0,
            },
            log: Log::default(),
        });
        answer.leases.push(Claimed {
            fence,
            tenant: job.new.tenant.clone(),
            queue: job.new.queue.clone(),
            spec: job.new.spec.clone(),
            created_at: job.record.created_at,
            started_at: now,
            expires_at: live.expires_at,
            run: None,
        });
        self.last_turn += 1;
        self.turns.insert((job.new.queue.clone(), job.new.priority, job.new.tenant.clone()), self.last_turn);
        let run = self.hand_out_in_run(number, fence, &claim.worker, now, followed);
        if let Some(lease) = answer.leases.last_mut() {
            lease.run = run.map(Box::new);
        }
    }

    /// What follows in the job's run, and what its worker is told of it.
    fn hand_out_in_run(
        &mut self,
        number: u64,
        fence: Fence,
        worker: &WorkerId,
        now: Timestamp,
        followed: &mut Followed,
    ) -> Option<ClaimedRun> {
        let place = self.jobs.get(&number)?.place?;
        let run = self.runs.get_mut(&place.run)?;
        run.started_at.get_or_insert(now);
        let job = run.job(place.index).name.clone();
        let started = RunEventKind::JobStarted { job, attempt: fence.attempt, worker: worker.clone() };
        run.tell(started, now, &mut followed.run);
        let workspace = self.hold_workspace(number, worker, followed);
        Some(ClaimedRun { workspace, ..self.claimed_run(number)? })
    }

    /// What the worker of a job of a run is told of it.
    pub(super) fn claimed_run(&self, number: u64) -> Option<ClaimedRun> {
        let place = self.jobs.get(&number)?.place?;
        let run = &self.runs[&place.run];
        let inputs = run.job(place.index).inputs.iter();
        let artifacts = inputs.filter_map(|(index, name)| self.artifact(Place { index: *index, ..place }, name));
        Some(ClaimedRun {
            run: run.new.id,
            needs: self.needs_of(place),
            artifacts: artifacts.cloned().collect(),
            workspace: self.workspace_in_use(number),
        })
    }
}
