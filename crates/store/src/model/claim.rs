//! Who gets which job.

use std::collections::BTreeMap;

use executr_api::{AttemptStatus, Fence, JobState};
use executr_spec::{LeaseId, Priority, QueueName, RequirementClass, Timestamp};
use uuid::Uuid;

use super::job::{Attempt, Live};
use super::log::Log;
use super::queue::Queue;
use crate::{AttemptRecord, Claim, ClaimAnswer, Claimed};

impl Queue {
    pub(super) fn claim(&mut self, claim: &Claim, now: Timestamp) -> ClaimAnswer {
        let mut answer = ClaimAnswer::default();
        let mut met = BTreeMap::new();
        for queue in &claim.queues {
            for priority in Priority::ALL {
                while (answer.leases.len() as u64) < u64::from(claim.limit) {
                    let Some(number) = self.first(claim, queue, priority, &mut met) else { break };
                    self.hand_out(number, claim, now, &mut answer);
                }
            }
        }
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

    fn hand_out(&mut self, number: u64, claim: &Claim, now: Timestamp, answer: &mut ClaimAnswer) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
        if job.record.reclaimable {
            if let Some(attempt) = job.attempts.last() {
                answer.revoked.push((attempt.record.fence, attempt.record.worker.clone()));
            }
            job.end_attempt(AttemptStatus::Lost, now);
        }
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
    }
}
