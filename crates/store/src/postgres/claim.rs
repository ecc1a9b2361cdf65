//! Who gets which job.
//!
//! A *lane* is a queue's priority and tenant; its buckets are parted by class. Claims look for the lanes whose turn it
//! is, take the oldest jobs of each, and move the lanes to the end of the line. All steps go by index, so their cost
//! depends neither on how many jobs wait nor on how many lanes and classes there are. `SKIP LOCKED` keeps coordinators
//! on one database from waiting for each other: each takes what the other does not hold.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use executr_api::{AttemptStatus, JobState, failpoint};
use executr_spec::{QueueName, Timestamp};
use uuid::Uuid;

use super::change::{Change, Counts, Place};
use super::coding::text;
use super::core::Core;
use super::fault::Fault;
use super::gather::Answers;
use super::lease::{LeaseRow, due_at, lease_columns};
use super::registry::ClassFilter;
use super::session::{Session, Step, step};
use crate::{Claim, ClaimAnswer, Claimed};

/// With at most so many classes each is looked up by itself; with more, lanes are taken in their order and those of other classes passed over.
const FEW_CLASSES: usize = 16;
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
struct Round {
    now: Timestamp,
    change: Change,
    answers: Vec<ClaimAnswer>,
    leases: Vec<LeaseRow>,
    /// Jobs whose old lease is revoked.
    revoked: Vec<Uuid>,
    /// Buckets with nothing (more) in them for this transaction.
    exhausted: Vec<i32>,
    /// Those of them that were empty at the first look.
    empty: Vec<i32>,
}

/// A job that waits, with all that handing it out needs.
struct Waiting {
    place: Place,
    counts: Counts,
    reclaim: bool,
    job: Uuid,
    created_at: i64,
    permit: Option<i64>,
    spec: String,
    /// The lease that is revoked for it.
    old: Option<LeaseRow>,
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
        jobs: impl Iterator<Item = Waiting>,
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
) -> Result<Vec<Waiting>, Fault> {
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

/// A tenant's place in a priority of a queue.
struct Lane {
    turn: i64,
    buckets: Vec<i32>,
}

/// The first lanes of a priority, in the order of their turns.
struct Group {
    lanes: Vec<Lane>,
    /// Whether these are all.
    complete: bool,
    /// The latest turn of all lanes there are.
    last_turn: i64,
}

/// The lanes of a queue that may have jobs for this claim, by priority. `None`: there are new buckets; ask again.
async fn lanes(
    core: &Core,
    session: &mut Session,
    round: &Round,
    queue: &QueueName,
    claim: &Claim,
    limit: usize,
) -> Result<Option<Vec<Group>>, Fault> {
    const HEAD: &str = "SELECT top.id, top.turn, p.priority, lane.turn, lane.tenant, b.id, lane.found
         FROM (SELECT coalesce((SELECT max(id) FROM executr.bucket), 0) AS id,
                      (SELECT last_value FROM executr.turn) AS turn) AS top
         CROSS JOIN generate_series(0, 2) AS p (priority)
         LEFT JOIN LATERAL (SELECT DISTINCT turn, tenant, count(*) OVER () AS found FROM (";
    const TAIL: &str = ") AS near) AS lane ON true
         LEFT JOIN executr.bucket b ON b.queue = $1 AND b.priority = p.priority::smallint AND b.tenant = lane.tenant
              AND b.active AND NOT b.retired AND ($3::text[] IS NULL OR b.class = ANY($3)) AND b.id <> ALL($4)
         ORDER BY p.priority, lane.turn, lane.tenant";
    const BY_TURN: &str = "SELECT turn, tenant FROM executr.bucket
         WHERE queue = $1 AND priority = p.priority::smallint AND active
               AND ($3::text[] IS NULL OR class = ANY($3)) AND id <> ALL($4)
         ORDER BY turn, tenant LIMIT $2";
    const BY_CLASS: &str = "SELECT each.turn, each.tenant FROM unnest($3::text[]) AS asked (class)
         CROSS JOIN LATERAL (
             SELECT turn, tenant FROM executr.bucket
             WHERE queue = $1 AND class = asked.class AND priority = p.priority::smallint AND active AND id <> ALL($4)
             ORDER BY turn, tenant LIMIT $2) AS each
         ORDER BY each.turn, each.tenant LIMIT $2";
    static BY_TURN_SQL: LazyLock<String> = LazyLock::new(|| [HEAD, BY_TURN, TAIL].concat());
    static BY_CLASS_SQL: LazyLock<String> = LazyLock::new(|| [HEAD, BY_CLASS, TAIL].concat());

    let filter = core.registry.filter(queue, &claim.offers);
    let classes = match &*filter {
        ClassFilter::All => None,
        ClassFilter::Some(classes) => Some(classes),
    };
    let sql = match classes {
        Some(classes) if classes.len() <= FEW_CLASSES => BY_CLASS_SQL.as_str(),
        _ => BY_TURN_SQL.as_str(),
    };
    let rows = session.rows(sql, &[&queue.as_str(), &(limit as i64), &classes, &round.exhausted]).await?;
    if rows.first().is_some_and(|row| row.get::<_, i32>(0) > core.registry.highest()) {
        core.registry.refresh(session).await?;
        return Ok(None);
    }
    let mut groups: BTreeMap<i32, Group> = BTreeMap::new();
    let mut last: Option<(i32, String)> = None;
    for row in rows {
        let Some(bucket) = row.get::<_, Option<i32>>(5) else { continue };
        let priority: i32 = row.get(2);
        let found: i64 = row.get(6);
        let group = groups.entry(priority).or_insert_with(|| Group {
            lanes: Vec::new(),
            complete: found < limit as i64,
            last_turn: row.get(1),
        });
        let name = (priority, row.get::<_, String>(4));
        match group.lanes.last_mut() {
            Some(lane) if last.as_ref() == Some(&name) => lane.buckets.push(bucket),
            _ => group.lanes.push(Lane { turn: row.get(3), buckets: vec![bucket] }),
        }
        last = Some(name);
    }
    Ok(Some(groups.into_values().collect()))
}

/// Takes from a group's lanes in turn, the same number from each, not more than are still wanted.
async fn take(
    session: &mut Session,
    round: &mut Round,
    group: &Group,
    wanted: usize,
    found: &mut Vec<Waiting>,
) -> Result<(), Fault> {
    let missing = wanted - found.len();
    let lanes = &group.lanes[..group.lanes.len().min(missing)];
    if lanes.is_empty() {
        return Ok(());
    }
    let each = if group.complete || group.lanes.len() >= missing { missing / lanes.len() } else { 1 };
    let buckets: Vec<i32> = lanes.iter().flat_map(|lane| lane.buckets.iter().copied()).collect();
    let mut waiting = waiting_in(session, &buckets, each).await?;

    // Which time its lane comes round, then the lanes in their order.
    let mut chosen: Vec<(usize, usize, Waiting)> = Vec::new();
    for (number, lane) in lanes.iter().enumerate() {
        let mut own: Vec<Waiting> = Vec::new();
        for bucket in &lane.buckets {
            let jobs = waiting.remove(bucket).unwrap_or_default();
            if jobs.is_empty() {
                round.empty.push(*bucket);
            }
            if jobs.len() < each {
                round.exhausted.push(*bucket);
            }
            own.extend(jobs);
        }
        own.sort_unstable_by_key(|job| job.place.seq);
        if own.len() > each {
            // What is left over waits in a bucket that may have given all it has.
            let left: HashSet<i32> = own.drain(each..).map(|job| job.place.bucket).collect();
            round.exhausted.retain(|bucket| !left.contains(bucket));
        }
        chosen.extend(own.into_iter().enumerate().map(|(time, job)| (time, number, job)));
    }
    chosen.sort_unstable_by_key(|(time, number, _)| (*time, *number));
    let chosen = revoke(session, round, chosen).await?;

    let mut served: Vec<(usize, i32)> = Vec::new();
    for (_, number, job) in &chosen {
        served.retain(|(lane, _)| lane != number);
        served.push((*number, job.place.bucket));
    }
    let taken_bucket: Vec<i32> = chosen.iter().map(|(_, _, job)| job.place.bucket).collect();
    let taken_seq: Vec<i64> = chosen.iter().map(|(_, _, job)| job.place.seq).collect();
    let served_bucket: Vec<i32> = served.iter().map(|(_, bucket)| *bucket).collect();
    let mut steps = Vec::new();
    if !taken_seq.is_empty() {
        steps.push(step!(
            "DELETE FROM executr.ready r USING unnest($1::int[], $2::bigint[]) AS gone (bucket, seq)
             WHERE r.bucket = gone.bucket AND r.seq = gone.seq",
            &taken_bucket,
            &taken_seq
        ));
    }
    let is_last = served.iter().all(|(lane, _)| lanes.get(*lane).is_some_and(|lane| lane.turn == group.last_turn));
    if !is_last {
        // Somebody else who moves a lane now moves it to the end as well.
        steps.push(step!(
            "WITH served AS MATERIALIZED (
                 SELECT bucket, nextval('executr.turn') AS turn FROM unnest($1::int[]) AS s (bucket)),
             lane AS MATERIALIZED (
                 SELECT b.id, served.turn FROM served JOIN executr.bucket s ON s.id = served.bucket
                 JOIN executr.bucket b ON b.queue = s.queue AND b.priority = s.priority AND b.tenant = s.tenant
                      AND (b.active OR b.id = s.id) AND NOT b.retired
                 FOR NO KEY UPDATE OF b SKIP LOCKED)
             UPDATE executr.bucket b SET turn = lane.turn FROM lane WHERE b.id = lane.id",
            &served_bucket
        ));
    }
    session.run_all(steps).await?;
    found.extend(chosen.into_iter().map(|(_, _, job)| job));
    Ok(())
}

/// The first jobs of each bucket, locked.
async fn waiting_in(session: &mut Session, buckets: &[i32], each: usize) -> Result<HashMap<i32, Vec<Waiting>>, Fault> {
    let rows = session
        .rows(
            "SELECT asked.bucket, r.seq, r.attempt, r.failures, r.lost, r.reclaim, j.id, j.created_at, j.permit, j.spec
             FROM unnest($1::int[]) AS asked (bucket)
             CROSS JOIN LATERAL (
                 SELECT seq, attempt, failures, lost, reclaim FROM executr.ready
                 WHERE bucket = asked.bucket ORDER BY seq LIMIT $2 FOR UPDATE SKIP LOCKED) AS r
             JOIN executr.job j ON j.seq = r.seq",
            &[&buckets, &(each as i64)],
        )
        .await?;
    let mut waiting: HashMap<i32, Vec<Waiting>> = HashMap::new();
    for row in rows {
        let bucket = row.get(0);
        waiting.entry(bucket).or_default().push(Waiting {
            place: Place { bucket, seq: row.get(1) },
            counts: Counts { attempt: row.get(2), failures: row.get(3), lost: row.get(4) },
            reclaim: row.get(5),
            job: row.get(6),
            created_at: row.get(7),
            permit: row.get(8),
            spec: row.get(9),
            old: None,
        });
    }
    Ok(waiting)
}

/// Looks up the leases that are revoked for the reclaimable ones of these jobs. A job whose holder is heard of in this
/// moment is left out: its lease row is locked.
async fn revoke(
    session: &mut Session,
    round: &mut Round,
    mut chosen: Vec<(usize, usize, Waiting)>,
) -> Result<Vec<(usize, usize, Waiting)>, Fault> {
    let jobs: Vec<Uuid> = chosen.iter().filter(|(_, _, job)| job.reclaim).map(|(_, _, job)| job.job).collect();
    if jobs.is_empty() {
        return Ok(chosen);
    }
    let sql = concat!(
        "SELECT ",
        lease_columns!(),
        " FROM executr.lease l WHERE l.job = ANY($1) AND l.due_at IS NULL FOR UPDATE SKIP LOCKED"
    );
    let rows = session.rows(sql, &[&jobs]).await?;
    let mut old: HashMap<Uuid, LeaseRow> =
        rows.iter().map(|row| LeaseRow::read(row, 0)).map(|lease| (lease.job, lease)).collect();
    for (_, _, job) in &mut chosen {
        if job.reclaim {
            job.old = old.remove(&job.job);
            if job.old.is_none() {
                round.exhausted.push(job.place.bucket);
            }
        }
    }
    chosen.retain(|(_, _, job)| !job.reclaim || job.old.is_some());
    Ok(chosen)
}

struct LeaseColumns<'a> {
    job: Vec<Uuid>,
    seq: Vec<i64>,
    bucket: Vec<i32>,
    permit: Vec<Option<i64>>,
    attempt: Vec<i32>,
    failures: Vec<i32>,
    lost: Vec<i32>,
    lease: Vec<Uuid>,
    worker: Vec<&'a str>,
    ip: Vec<Option<&'a str>>,
    expires_at: Vec<i64>,
    due_at: Vec<Option<i64>>,
    period: Vec<i64>,
}

impl<'a> LeaseColumns<'a> {
    fn new(leases: &'a [LeaseRow]) -> Self {
        Self {
            job: leases.iter().map(|lease| lease.job).collect(),
            seq: leases.iter().map(|lease| lease.place.seq).collect(),
            bucket: leases.iter().map(|lease| lease.place.bucket).collect(),
            permit: leases.iter().map(|lease| lease.permit).collect(),
            attempt: leases.iter().map(|lease| lease.counts.attempt).collect(),
            failures: leases.iter().map(|lease| lease.counts.failures).collect(),
            lost: leases.iter().map(|lease| lease.counts.lost).collect(),
            lease: leases.iter().map(|lease| lease.lease).collect(),
            worker: leases.iter().map(|lease| lease.worker.as_str()).collect(),
            ip: leases.iter().map(|lease| lease.ip.as_deref()).collect(),
            expires_at: leases.iter().map(|lease| lease.expires_at).collect(),
            due_at: leases.iter().map(|lease| lease.due_at).collect(),
            period: leases.iter().map(|lease| lease.period).collect(),
        }
    }

    fn step<'b>(&'b self, now: &'b i64) -> Step<'b> {
        step!(
            "INSERT INTO executr.lease (started_at, renewed_at, job, seq, bucket, permit, attempt, failures, lost, lease,
                                        worker, ip, expires_at, due_at, period)
             SELECT $14, $14, * FROM unnest($1::uuid[], $2::bigint[], $3::int[], $4::bigint[], $5::int[], $6::int[],
                 $7::int[], $8::uuid[], $9::text[], $10::text[], $11::bigint[], $12::bigint[], $13::bigint[])",
            &self.job,
            &self.seq,
            &self.bucket,
            &self.permit,
            &self.attempt,
            &self.failures,
            &self.lost,
            &self.lease,
            &self.worker,
            &self.ip,
            &self.expires_at,
            &self.due_at,
            &self.period,
            now
        )
    }
}
