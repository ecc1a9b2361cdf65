//! Taking jobs out of the ready set: first which, by the narrow rows, then what they are.

use std::collections::{HashMap, HashSet};

use tokio_postgres::Row;
use uuid::Uuid;

use super::change::{Counts, Place};
use super::claim::Round;
use super::coding::damaged;
use super::fault::Fault;
use super::lanes::Group;
use super::lease::{LeaseRow, lease_columns};
use super::session::{Session, step};

/// A row of the ready set.
struct Waiting {
    place: Place,
    counts: Counts,
    reclaim: bool,
    /// The lease that is revoked for it.
    old: Option<LeaseRow>,
}

/// A job that was taken, with all that handing it out needs.
pub(super) struct Taken {
    pub(super) place: Place,
    pub(super) counts: Counts,
    pub(super) job: Uuid,
    pub(super) created_at: i64,
    pub(super) permit: Option<i64>,
    pub(super) spec: String,
    /// Its run and the workspace that it uses, if it is of one and uses one.
    pub(super) run: Option<i64>,
    pub(super) workspace: Option<i64>,
    /// When its tenant was served before.
    pub(super) turn: i64,
    /// The lease that is revoked for it.
    pub(super) old: Option<LeaseRow>,
}

/// Takes from a group's lanes in turn, the same number from each, not more than are still wanted.
pub(super) async fn take(
    session: &mut Session,
    round: &mut Round,
    group: &Group,
    wanted: usize,
    found: &mut Vec<Taken>,
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
    if chosen.is_empty() {
        return Ok(());
    }

    let mut served: Vec<(usize, i32)> = Vec::new();
    for (_, number, job) in &chosen {
        served.retain(|(lane, _)| lane != number);
        served.push((*number, job.place.bucket));
    }
    let taken_bucket: Vec<i32> = chosen.iter().map(|(_, _, job)| job.place.bucket).collect();
    let taken_seq: Vec<i64> = chosen.iter().map(|(_, _, job)| job.place.seq).collect();
    let served_bucket: Vec<i32> = served.iter().map(|(_, bucket)| *bucket).collect();
    let mut steps = vec![step!(
        "DELETE FROM executr.ready r USING unnest($1::int[], $2::bigint[]) AS gone (bucket, seq)
         WHERE r.bucket = gone.bucket AND r.seq = gone.seq",
        &taken_bucket,
        &taken_seq
    )];
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
    let sql = "SELECT seq, id, created_at, permit, spec, run, workspace FROM executr.job WHERE seq = ANY($1)";
    let rows = session.run_all_and_read(steps, sql, &[&taken_seq]).await?;
    let mut jobs: HashMap<i64, Row> = rows.into_iter().map(|row| (row.get(0), row)).collect();
    for (_, lane, Waiting { place, counts, old, .. }) in chosen {
        let row =
            jobs.remove(&place.seq).ok_or_else(|| damaged(format!("the job {} is ready and not there", place.seq)))?;
        found.push(Taken {
            place,
            counts,
            job: row.get(1),
            created_at: row.get(2),
            permit: row.get(3),
            spec: row.get(4),
            run: row.get(5),
            workspace: row.get(6),
            turn: lanes.get(lane).map_or(0, |lane| lane.turn),
            old,
        });
    }
    Ok(())
}

/// The first jobs of each bucket, locked.
async fn waiting_in(session: &mut Session, buckets: &[i32], each: usize) -> Result<HashMap<i32, Vec<Waiting>>, Fault> {
    let rows = session
        .rows(
            "SELECT asked.bucket, r.seq, r.attempt, r.failures, r.lost, r.reclaim
             FROM unnest($1::int[]) AS asked (bucket)
             CROSS JOIN LATERAL (
                 SELECT seq, attempt, failures, lost, reclaim FROM executr.ready
                 WHERE bucket = asked.bucket ORDER BY seq LIMIT $2 FOR UPDATE SKIP LOCKED) AS r",
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
    let jobs: Vec<i64> = chosen.iter().filter(|(_, _, job)| job.reclaim).map(|(_, _, job)| job.place.seq).collect();
    if jobs.is_empty() {
        return Ok(chosen);
    }
    let sql = concat!(
        "SELECT ",
        lease_columns!(),
        " FROM executr.job j JOIN executr.lease l ON l.job = j.id
         WHERE j.seq = ANY($1) AND l.due_at IS NULL FOR UPDATE OF l SKIP LOCKED"
    );
    let rows = session.rows(sql, &[&jobs]).await?;
    let mut old: HashMap<i64, LeaseRow> =
        rows.iter().map(|row| LeaseRow::read(row, 0)).map(|lease| (lease.place.seq, lease)).collect();
    for (_, _, job) in &mut chosen {
        if job.reclaim {
            job.old = old.remove(&job.place.seq);
            if job.old.is_none() {
                round.exhausted.push(job.place.bucket);
            }
        }
    }
    chosen.retain(|(_, _, job)| !job.reclaim || job.old.is_some());
    Ok(chosen)
}
