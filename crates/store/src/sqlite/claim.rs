//! Handing out jobs.

use std::sync::Arc;

use executr_api::{AttemptStatus, Fence, JobState};
use executr_spec::{LeaseId, Priority, SpecJson, Timestamp};
use rusqlite::params;
use uuid::Uuid;

use super::error::damaged;
use super::index::BucketId;
use super::lease::{Ending, Live};
use super::row::{backoff, get, job_id, micros, to_json};
use super::runs::Followed;
use super::writer::Writer;
use crate::{Claim, ClaimAnswer, Claimed, StoreError};

impl Writer<'_> {
    /// Hands out jobs to each claim's worker.
    pub(super) fn claim(&mut self, claims: &[Claim]) -> Result<Vec<ClaimAnswer>, StoreError> {
        claims.iter().map(|claim| self.claim_one(claim)).collect()
    }

    fn claim_one(&mut self, claim: &Claim) -> Result<ClaimAnswer, StoreError> {
        let mut answer = ClaimAnswer::default();
        let mut followed = Followed::default();
        // Which worker it is stands apart: it is never sent.
        let offers = to_json(&(&*claim.offers, claim.offers.worker.as_ref()))?;
        let (worker, ip) = (Arc::from(claim.worker.0.as_str()), claim.ip.as_deref().map(Arc::from));
        for queue in &claim.queues {
            let mut classes = self.index.classes_for(queue, &claim.offers, &offers);
            for priority in Priority::ALL {
                while (answer.leases.len() as u64) < u64::from(claim.limit) {
                    let Some((bucket, seq)) = self.index.next(queue, priority, &classes, self.connection)? else {
                        break;
                    };
                    if self.hand_out(bucket, seq, claim, &worker, ip.as_ref(), &mut answer, &mut followed)? {
                        classes = self.index.classes_for(queue, &claim.offers, &offers);
                    }
                }
            }
        }
        answer.run = followed.into_progress(&self.index)?;
        Ok(answer)
    }

    /// Hands out a job. Returns whether others were moved to other classes by it.
    #[expect(clippy::too_many_arguments, reason = "what is the same for all jobs of a claim is made once")]
    fn hand_out(
        &mut self,
        bucket: BucketId,
        seq: i64,
        claim: &Claim,
        worker: &Arc<str>,
        ip: Option<&Arc<str>>,
        answer: &mut ClaimAnswer,
        followed: &mut Followed,
    ) -> Result<bool, StoreError> {
        let now = self.now();
        let (mut live, created_at, spec) = {
            let mut statement = self.statements.get(
                "SELECT j.id, j.attempt, j.failures, j.lost_leases, j.max_retries, j.concurrency_key IS NOT NULL,
                            s.backoff_kind, s.backoff_min, s.backoff_max, j.created_at, s.spec
                     FROM job j JOIN spec s USING (seq) WHERE j.seq = ?1",
            )?;
            let mut rows = statement.query([seq]).map_err(super::error::from_sqlite)?;
            let row = rows.next().map_err(super::error::from_sqlite)?;
            let row = row.ok_or_else(|| damaged(format_args!("no job {seq}")))?;
            let fence =
                Fence { job: job_id(get(row, 0)?), attempt: get::<u32>(row, 1)? + 1, lease: LeaseId(Uuid::new_v4()) };
            let live = Live {
                seq,
                fence,
                worker: worker.clone(),
                ip: ip.cloned(),
                started_at: now,
                expires_at: now.plus(claim.lease),
                period: claim.lease,
                cancelling: false,
                reclaimable: false,
                bucket,
                failures: get(row, 2)?,
                lost_leases: get(row, 3)?,
                max_retries: get(row, 4)?,
                keyed: get(row, 5)?,
                backoff: backoff(get(row, 6)?, get(row, 7)?, get(row, 8)?)?,
            };
            let spec = SpecJson::from_text(get(row, 10)?).map_err(damaged)?;
            (live, Timestamp(get(row, 9)?), spec)
        };
        if let Some(old) = self.leases.get(live.fence.job) {
            // In the ready set though somebody has it: its lease ran out.
            answer.revoked.push((old.fence, old.worker_id()));
            live.fence.attempt = old.fence.attempt + 1;
            live.lost_leases += 1;
            self.end_lease(live.fence.job, &Ending { status: AttemptStatus::Lost, result: None })?;
            self.execute("UPDATE job SET lost_leases = ?2 WHERE seq = ?1", params![seq, live.lost_leases])?;
            if let Some(place) = self.runs.place(seq) {
                self.lease_was_lost(place, live.fence.attempt - 1, followed)?;
            }
        } else {
            self.leave_ready(bucket, seq)?;
            self.step(bucket, seq, JobState::Ready, JobState::Running)?;
        }
        self.execute(
            "INSERT INTO lease VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?6, 0, 0)",
            params![
                seq,
                live.fence.lease.0.as_bytes(),
                live.fence.attempt,
                &*live.worker,
                live.ip.as_deref(),
                now.0,
                live.expires_at.0,
                micros(claim.lease),
            ],
        )?;
        self.index.served(bucket)?;
        let key = self.index.key(bucket)?;
        answer.leases.push(Claimed {
            fence: live.fence,
            tenant: key.tenant.clone(),
            queue: key.queue.clone(),
            spec,
            created_at,
            started_at: now,
            expires_at: live.expires_at,
            run: None,
        });
        self.logs.begin(live.fence);
        let fence = live.fence;
        self.leases.insert(live);
        let Some(place) = self.runs.place(seq) else { return Ok(false) };
        let (run, moved) = self.handed_out(place, fence, worker, followed)?;
        if let Some(claimed) = answer.leases.last_mut() {
            claimed.run = Some(Box::new(run));
        }
        Ok(moved)
    }
}
