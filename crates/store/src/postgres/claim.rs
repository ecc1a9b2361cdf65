//! Who gets which job.
//!
//! A *lane* is a queue's priority and tenant; its buckets are parted by class. Claims look for the lanes whose turn it
//! is, take the oldest jobs of each, and move the lanes to the end of the line. All steps go by index, so their cost
//! depends neither on how many jobs wait nor on how many lanes and classes there are. `SKIP LOCKED` keeps coordinators
//! on one database from waiting for each other: each takes what the other does not hold.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use executr_api::{AttemptStatus, JobState, WorkspaceId, failpoint};
use executr_spec::Timestamp;
use uuid::Uuid;

use super::change::{Change, Place, readied};
use super::coding::text;
use super::core::Core;
use super::fault::Fault;
use super::gather::Answers;
use super::lanes::lanes;
use super::lease::{LeaseColumns, LeaseRow, due_at};
use super::runs::{Held, Moved, News, contexts, hold, let_go, move_users};
use super::session::{Session, step};
use super::take::{Taken, take};
use crate::{Claim, ClaimAnswer, Claimed, Readied};

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
        let mut found = VecDeque::from(find(core, session, &mut round, first, wanted).await?);
        let mut for_others = wanted;
        for claim in together {
            let mut answer = ClaimAnswer::default();
            for_others -= claim.limit as usize;
            while round.hand_out(core, session, claim, &mut found, &mut answer).await? {
                // Jobs stand elsewhere now than when these were found.
                let missing = claim.limit as usize - answer.leases.len() + for_others;
                found = find(core, session, &mut round, claim, missing).await?.into();
            }
            round.answers.push(answer);
        }
        next += alike;
    }
    round.look_into_runs(session).await?;
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
    /// Of jobs of runs: which lease, of which answer, and what it uses.
    of_runs: Vec<OfRun>,
    news: News,
    /// Jobs of runs whose attempts were lost.
    lost: Vec<i64>,
    /// Buckets with nothing (more) in them for this transaction.
    pub(super) exhausted: Vec<i32>,
    /// Those of them that were empty at the first look.
    pub(super) empty: Vec<i32>,
}

/// A lease of a job of a run.
struct OfRun {
    answer: usize,
    lease: usize,
    /// Its place in `Round::leases`.
    row: usize,
    /// The attempt that was revoked for it.
    lost: Option<u32>,
    workspace: Option<WorkspaceId>,
}

impl Round {
    fn new(now: Timestamp) -> Self {
        Self {
            now,
            change: Change::default(),
            answers: Vec::new(),
            leases: Vec::new(),
            revoked: Vec::new(),
            of_runs: Vec::new(),
            news: News::default(),
            lost: Vec::new(),
            exhausted: Vec::new(),
            empty: Vec::new(),
        }
    }

    /// Makes leases of jobs that were found. Returns whether others were moved in the ready set: those that were found
    /// besides are back in it then.
    async fn hand_out(
        &mut self,
        core: &Core,
        session: &mut Session,
        claim: &Claim,
        found: &mut VecDeque<Taken>,
        answer: &mut ClaimAnswer,
    ) -> Result<bool, Fault> {
        let mut moved = Moved::default();
        let period = i64::try_from(claim.lease.as_micros()).unwrap_or(i64::MAX);
        let expires_at = self.now.plus(claim.lease);
        let mut again = false;
        while answer.leases.len() < claim.limit as usize
            && !again
            && let Some(mut job) = found.pop_front()
        {
            let mut workspace = None;
            if let Some(id) = job.workspace {
                match hold(core, session, self.now, claim, &mut job, id, &mut moved).await? {
                    Held::Taken(id) => workspace = Some(id),
                    Held::Gained(held) => {
                        workspace = Some(held);
                        let worker = text(&claim.worker.0);
                        moved.buckets.extend(move_users(core, session, self.now, id, Some(&worker)).await?);
                        again = !moved.buckets.is_empty() || found.iter().any(|other| other.workspace == Some(id));
                        if again {
                            self.put_back(core, session, Some(job.place), found).await?;
                            moved.buckets.extend(move_users(core, session, self.now, id, Some(&worker)).await?);
                        }
                    }
                    Held::PutBack => {
                        again = true;
                        self.put_back(core, session, None, found).await?;
                        continue;
                    }
                }
            }
            let lost = job.old.as_ref().map(|old| old.fence().attempt);
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
                run: job.run,
            };
            if job.run.is_some() {
                let (answer, lease) = (self.answers.len(), answer.leases.len());
                self.of_runs.push(OfRun { answer, lease, row: self.leases.len(), lost, workspace });
                self.lost.extend(lost.map(|_| job.place.seq));
            }
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
        answer.run.released.append(&mut moved.released);
        self.exhausted.retain(|bucket| !moved.buckets.contains(bucket));
        merge(&mut answer.run.readied, readied(core, moved.buckets));
        Ok(again)
    }

    /// Puts jobs that were found back into the ready set, as if it hadn't been the turn of their tenants, but for those who
    /// got one: the last is the one at `got`.
    async fn put_back(
        &mut self,
        core: &Core,
        session: &mut Session,
        got: Option<Place>,
        found: &mut VecDeque<Taken>,
    ) -> Result<(), Fault> {
        let lane = |bucket: i32| core.registry.lookup(bucket).map(|b| (b.queue.clone(), b.priority, b.tenant.clone()));
        let handed_out = self.leases.iter().map(|lease| lease.place).chain(got);
        let served: HashSet<_> = handed_out.map(|place| lane(place.bucket)).collect();
        let mut turns: HashMap<_, (i32, i64)> = HashMap::new();
        let mut change = Change::default();
        for job in found.drain(..) {
            let lane = lane(job.place.bucket);
            if !served.contains(&lane) {
                turns.entry(lane).or_insert((job.place.bucket, job.turn));
            }
            if job.old.is_some() {
                change.reclaimable(job.place, job.counts);
            } else {
                change.ready(job.place, job.counts);
            }
            self.exhausted.retain(|bucket| *bucket != job.place.bucket);
        }
        let (buckets, turns): (Vec<i32>, Vec<i64>) = turns.into_values().unzip();
        let mut steps = Vec::new();
        if !buckets.is_empty() {
            steps.push(step!(
                "WITH lane AS MATERIALIZED (
                     SELECT b.id, asked.turn FROM unnest($1::int[], $2::bigint[]) AS asked (bucket, turn)
                     JOIN executr.bucket s ON s.id = asked.bucket
                     JOIN executr.bucket b ON b.queue = s.queue AND b.priority = s.priority AND b.tenant = s.tenant
                          AND (b.active OR b.id = s.id) AND NOT b.retired
                     FOR NO KEY UPDATE OF b SKIP LOCKED)
                 UPDATE executr.bucket b SET turn = lane.turn FROM lane WHERE b.id = lane.id",
                &buckets,
                &turns
            ));
        }
        change.write(core, session, self.now, steps).await
    }

    /// Tells the workers of jobs of runs what they have of those, and the runs that they have them.
    async fn look_into_runs(&mut self, session: &mut Session) -> Result<(), Fault> {
        let seqs: Vec<i64> =
            self.of_runs.iter().filter_map(|of| self.leases.get(of.row)).map(|lease| lease.place.seq).collect();
        let contexts = contexts(session, &seqs).await?;
        for OfRun { answer, lease, row, lost, workspace } in std::mem::take(&mut self.of_runs) {
            let (Some(row), Some(answer)) = (self.leases.get(row), self.answers.get_mut(answer)) else { continue };
            let Some(context) = contexts.get(&row.place.seq) else {
                return Err(Fault::Again(format!("the run of the job {} is being deleted", row.place.seq)));
            };
            context.tell(row, lost, &mut self.news)?;
            let run = context.run_id();
            if let Err(at) = answer.run.changed.binary_search(&run) {
                answer.run.changed.insert(at, run);
            }
            if let Some(lease) = answer.leases.get_mut(lease) {
                lease.run = Some(Box::new(context.claimed(workspace)));
            }
        }
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
        steps.extend(self.news.step(&self.now.0));
        if !self.lost.is_empty() {
            steps.push(let_go(&self.lost));
        }
        self.change.write(core, session, self.now, steps).await?;
        if !self.empty.is_empty() {
            put_to_sleep(session, &self.empty).await?;
        }
        Ok(())
    }
}

/// Adds what became ready to what did before.
fn merge(all: &mut Vec<Readied>, new: Vec<Readied>) {
    for one in new {
        match all.binary_search_by(|known| (&known.queue, &known.class).cmp(&(&one.queue, &one.class))) {
            Ok(at) => all[at].jobs += one.jobs,
            Err(at) => all.insert(at, one),
        }
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
