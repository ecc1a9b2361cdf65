//! What the passing of time does: to leases that ran out, and to scheduled jobs whose time has come.

use executr_api::{AttemptStatus, JobState, failpoint};
use executr_spec::{JobId, Timestamp};
use uuid::Uuid;

use super::change::{Change, Counts, Place, readied};
use super::core::Core;
use super::fault::Fault;
use super::lease::{LeaseRow, lease_columns};
use super::permits::Permits;
use super::session::Session;
use crate::lifecycle::lost_too_often;
use crate::{Advanced, MAX_LOST_LEASES};

/// What is asked.
#[derive(Clone, Copy)]
pub(super) struct Wish {
    pub(super) may_reclaim: bool,
    pub(super) limit: u32,
}

/// Moves what time moves. Several coordinators may do so at once: each takes rows that the other does not hold.
pub(super) async fn advance(core: &Core, session: &mut Session, wish: Wish) -> Result<Advanced, Fault> {
    let now = session.begin(core.clock_offset()).await?;
    let mut answer = Advanced::default();
    let mut change = Change::default();
    let mut permits = Permits::default();
    let mut freed = Vec::new();
    if wish.may_reclaim {
        leases(core, session, wish, now, &mut change, &mut permits, &mut answer, &mut freed).await?;
    }
    scheduled(core, session, wish, now, &mut change, &mut permits, &mut answer, &mut freed).await?;
    answer.readied = readied(core, freed);
    change.write(core, session, now, Vec::new()).await?;
    permits.write(session).await?;
    let row = session
        .row(
            "SELECT least((SELECT due_at FROM executr.scheduled ORDER BY due_at LIMIT 1),
                          (SELECT min(due_at) FROM executr.lease WHERE $1))",
            &[&wish.may_reclaim],
        )
        .await?;
    answer.next_at = row.and_then(|row| row.get::<_, Option<i64>>(0)).map(Timestamp);
    session.commit().await?;
    failpoint::pass("sweep.after-commit");
    core.registry.forget_live();
    Ok(answer)
}

#[allow(clippy::too_many_arguments, reason = "one transition, and what it reads and writes")]
async fn leases(
    core: &Core,
    session: &mut Session,
    wish: Wish,
    now: Timestamp,
    change: &mut Change,
    permits: &mut Permits,
    answer: &mut Advanced,
    freed: &mut Vec<i32>,
) -> Result<(), Fault> {
    let sql = concat!(
        "SELECT ",
        lease_columns!(),
        " FROM executr.lease l WHERE l.due_at <= $1 ORDER BY l.due_at, l.seq LIMIT $2 FOR UPDATE SKIP LOCKED"
    );
    let rows = session.rows(sql, &[&now.0, &(i64::from(wish.limit) + 1)]).await?;
    answer.more |= rows.len() > wish.limit as usize;
    let over: Vec<LeaseRow> = rows.iter().take(wish.limit as usize).map(|row| LeaseRow::read(row, 0)).collect();
    let ends = |lease: &LeaseRow| lease.cancelling || lease.counts.lost + 1 >= MAX_LOST_LEASES as i32;
    permits.lock(session, over.iter().filter(|lease| ends(lease)).filter_map(|lease| lease.permit)).await?;
    let (mut ended, mut reclaimable): (Vec<Uuid>, Vec<Uuid>) = (Vec::new(), Vec::new());
    for lease in &over {
        core.registry.bucket(session, lease.place.bucket).await?;
        if !ends(lease) {
            change.reclaimable(lease.place, lease.counts);
            reclaimable.push(lease.job);
            freed.push(lease.place.bucket);
            answer.reclaimable.push((JobId(lease.job), lease.worker()));
            continue;
        }
        let counts = Counts { lost: lease.counts.lost + 1, ..lease.counts };
        let (state, reason) = if lease.cancelling {
            (JobState::Cancelled, lease.reason.clone())
        } else {
            (JobState::Failed, Some(lost_too_often(super::coding::small(counts.lost.into()))))
        };
        lease.end_job(core, change, state, counts, reason, lease.end(AttemptStatus::Lost));
        ended.push(lease.job);
        answer.ended.push((JobId(lease.job), state, lease.fence(), lease.worker()));
        if let Some(permit) = lease.permit {
            freed.extend(permits.give_back(core, session, change, permit).await?);
        }
    }
    if !ended.is_empty() {
        session.run("DELETE FROM executr.lease WHERE job = ANY($1)", &[&ended]).await?;
    }
    if !reclaimable.is_empty() {
        session.run("UPDATE executr.lease SET due_at = NULL WHERE job = ANY($1)", &[&reclaimable]).await?;
    }
    Ok(())
}

#[allow(clippy::too_many_arguments, reason = "one transition, and what it reads and writes")]
async fn scheduled(
    core: &Core,
    session: &mut Session,
    wish: Wish,
    now: Timestamp,
    change: &mut Change,
    permits: &mut Permits,
    answer: &mut Advanced,
    freed: &mut Vec<i32>,
) -> Result<(), Fault> {
    let rows = session
        .rows(
            "SELECT s.seq, j.bucket, s.attempt, s.failures, s.lost, j.permit, j.permit_limit
             FROM (SELECT * FROM executr.scheduled WHERE due_at <= $1 ORDER BY due_at, seq LIMIT $2
                   FOR UPDATE SKIP LOCKED) AS s
             JOIN executr.job j ON j.seq = s.seq ORDER BY s.due_at, s.seq",
            &[&now.0, &(i64::from(wish.limit) + 1)],
        )
        .await?;
    answer.more |= rows.len() > wish.limit as usize;
    let due = &rows[..rows.len().min(wish.limit as usize)];
    permits.lock(session, due.iter().filter_map(|row| row.get::<_, Option<i64>>(5))).await?;
    let mut moved = Vec::new();
    for row in due {
        let place = Place { seq: row.get(0), bucket: row.get(1) };
        let counts = Counts { attempt: row.get(2), failures: row.get(3), lost: row.get(4) };
        let bucket = core.registry.bucket(session, place.bucket).await?;
        let permit: Option<i64> = row.get(5);
        let limit = row.get::<_, Option<i64>>(6).unwrap_or(i64::MAX);
        let state = match permit {
            Some(id) if !permits.take(id, limit) => {
                change.blocked(place, counts, id, limit, bucket.priority.rank());
                JobState::Blocked
            }
            _ => {
                change.ready(place, counts);
                freed.push(place.bucket);
                JobState::Ready
            }
        };
        change.count(core, place.bucket, Some(JobState::Scheduled), Some(state));
        moved.push(place.seq);
    }
    if !moved.is_empty() {
        session.run("DELETE FROM executr.scheduled WHERE seq = ANY($1)", &[&moved]).await?;
    }
    Ok(())
}
