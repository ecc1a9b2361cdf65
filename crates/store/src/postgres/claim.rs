//! Who gets which job.
//!
//! A *lane* is a queue's priority and tenant; its buckets are parted by class. Claims look for the lanes whose turn it
//! is, take the oldest jobs of each, and move the lanes to the end of the line. All steps go by index, so their cost
//! depends neither on how many jobs wait nor on how many lanes and classes there are. `SKIP LOCKED` keeps coordinators
//! on one database from waiting for each other: each takes what the other does not hold.

use std::sync::Arc;

use executr_api::{AttemptStatus, JobState, failpoint};
use executr_spec::Timestamp;
use uuid::Uuid;

use super::change::Change;
use super::coding::text;
use super::core::Core;
use super::fault::Fault;
use super::gather::Answers;
use super::lanes::lanes;
use super::lease::{LeaseColumns, LeaseRow, due_at};
use super::session::{Session, step};
use super::take::{Taken, take};
use crate::{Claim, ClaimAnswer, Claimed};

/// So many buckets are looked at, at most, in one go.
const MOST_LANES: usize = 16_384;

/// Hands out jobs to the claims of several callers, in their order.
pub(super) async fn claim(
    core: &Core,
    session: &mut Session,
    requests: &[Vec<Claim>],
) -> Result<Answers<Vec<ClaimAnswer>>, Fault> {
    let claims: Vec<&Claim> = requests.iter().flatten().collect();
    let now = session.begin(core.clock_offset()).await?;
    let mut round = Round::new(now);
    let mut next = 0;
    while let Some(first) = claims.get(next) {
        // Claims that want the same are as one that wants as much as all of them.
        let alike = claims[next..].iter().take_while(|claim| is_alike(first, claim)).count();
        let together = &claims[next..next + alike];
        let wanted: usize = together.iter().map(|claim| claim.limit as usize).sum();
        let mut found = find(core, session, &mut round, first, wanted).await?.into_iter();
        for claim in together {
            round.hand_out(core, session, claim, found.by_ref().take(claim.limit as usize)).await?;
        }
        next += alike;
    }
    round.write(core, session).await?;
    failpoint::pass("claim.before-commit");
    session.commit().await?;
    failpoint::pass("claim.after-commit");
    core.upkeep.removed(round.leases.len());
    let mut answers = round.answers.into_iter();
    Ok(requests.iter().map(|claims| Ok(answers.by_ref().take(claims.len()).collect())).collect())
}

fn is_alike(one: &Claim, other: &Claim) -> bool {
    one.queues == other.queues && (Arc::ptr_eq(&one.offers, &other.offers) || one.offers == other.offers)
}

/// What one transaction of claims has gathered.
pub(super) struct Round {
    now: Timestamp,
    change: Change,
    answers: Vec<ClaimAnswer>,
    leases: Vec<LeaseRow>,
    /// Jobs whose old lease is revoked.
    revoked: Vec<Uuid>,
    /// Buckets with nothing (more) in them for this transaction.
    pub(super) exhausted: Vec<i32>,
    /// Those of them that were empty at the first look.
    pub(super) empty: Vec<i32>,
}

impl Round {
    fn new(now: Timestamp) -> Self {
        Self {
            now,
            change: Change::default(),
            answers: Vec::new(),
            leases: Vec::new(),
            revoked: Vec::new(),
            exhausted: Vec::new(),
            empty: Vec::new(),
        }
    }

    /// Makes a lease of a job that was taken.
    async fn hand_out(
        &mut self,
        core: &Core,
        session: &mut Session,
        claim: &Claim,
        jobs: impl Iterator<Item = Taken>,
    ) -> Result<(), Fault> {
        let mut answer = ClaimAnswer::default();
        let period = i64::try_from(claim.lease.as_micros()).unwrap_or(i64::MAX);
        let expires_at = self.now.plus(claim.lease);
        for mut job in jobs {
            let bucket = core.registry.bucket(session, job.place.bucket).await?;
            if let Some(old) = job.old.take() {
                answer.revoked.push((old.fence(), old.worker()));
                job.counts = old.counts;
                job.counts.lost += 1;
                self.revoked.push(old.job);
                self.change.attempt(old.place.seq, old.end(AttemptStatus::Lost));
            } else {
                self.change.count(core, job.place.bucket, Some(JobState::Ready), Some(JobState::Running));
            }
            job.counts.attempt += 1;
            let lease = LeaseRow {
                job: job.job,
                place: job.place,
                permit: job.permit,
                counts: job.counts,
                lease: Uuid::new_v4(),
                worker: text(&claim.worker.0),
                ip: claim.ip.as_deref().map(text),
                started_at: self.now.0,
                expires_at: expires_at.0,
                due_at: Some(due_at(expires_at.0, period, false, job.counts.lost)),
                period,
                cancelling: false,
                reason: None,
                output_end: 0,
            };
            answer.leases.push(Claimed {
                fence: lease.fence(),
                tenant: bucket.tenant.clone(),
                queue: bucket.queue.clone(),
                spec: super::job::spec(job.spec)?,
                created_at: Timestamp(job.created_at),
                started_at: self.now,
                expires_at,
                run: None,
            });
            self.leases.push(lease);
        }
        self.answers.push(answer);
        Ok(())
    }

    async fn write(&self, core: &Core, session: &mut Session) -> Result<(), Fault> {
        let leases = LeaseColumns::new(&self.leases);
        let mut steps = Vec::new();
        if !self.revoked.is_empty() {
            steps.push(step!("DELETE FROM executr.lease WHERE job = ANY($1)", &self.revoked));
        }
        if !self.leases.is_empty() {
            steps.push(leases.step(&self.now.0));
        }
        self.change.write(core, session, self.now, steps).await?;
        if !self.empty.is_empty() {
            put_to_sleep(session, &self.empty).await?;
        }
        Ok(())
    }
}

/// Marks buckets as having nothing ready, if that is so and nobody is making something ready in them just now.
async fn put_to_sleep(session: &mut Session, buckets: &[i32]) -> Result<(), Fault> {
    let sql = "SELECT id FROM executr.bucket WHERE id = ANY($1) AND active ORDER BY id FOR UPDATE SKIP LOCKED";
    let held: Vec<i32> = session.rows(sql, &[&buckets]).await?.iter().map(|row| row.get(0)).collect();
    if !held.is_empty() {
        // A statement of its own: it sees what was committed before the lock was had.
        session
            .run(
                "UPDATE executr.bucket b SET active = false WHERE id = ANY($1)
                 AND NOT EXISTS (SELECT FROM executr.ready r WHERE r.bucket = b.id)",
                &[&held],
            )
            .await?;
    }
    Ok(())
}

/// Takes up to `wanted` jobs out of the ready set, in the order in which they are to be handed out.
async fn find(
    core: &Core,
    session: &mut Session,
    round: &mut Round,
    claim: &Claim,
    wanted: usize,
) -> Result<Vec<Taken>, Fault> {
    let mut found = Vec::new();
    for queue in &claim.queues {
        let mut width = 1;
        while found.len() < wanted {
            let limit = (wanted - found.len()).saturating_mul(width).min(MOST_LANES);
            let before = found.len();
            let Some(groups) = lanes(core, session, round, queue, claim, limit).await? else { continue };
            let mut finished = true;
            for group in &groups {
                let narrow = !group.complete && group.lanes.len() < wanted - found.len();
                if narrow && limit < MOST_LANES {
                    // The same few lanes, by many classes: there are others to take turns with.
                    finished = false;
                    break;
                }
                take(session, round, group, wanted, &mut found).await?;
                if found.len() >= wanted {
                    break;
                }
                let left = group.lanes.iter().flat_map(|lane| &lane.buckets).any(|id| !round.exhausted.contains(id));
                if left || !group.complete {
                    finished = false;
                    break;
                }
            }
            if finished {
                break;
            }
            if found.len() == before {
                width = width.saturating_mul(4);
            }
        }
    }
    Ok(found)
}
