//! What the passing of time does: to leases that ran out, and to scheduled jobs whose time has come.

use std::collections::HashMap;

use executr_api::{AttemptStatus, JobState, failpoint};
use executr_spec::{JobId, Timestamp};
use uuid::Uuid;

use super::change::{Change, Counts, Place, readied};
use super::core::Core;
use super::fault::Fault;
use super::lease::{LeaseRow, lease_columns};
use super::permits::Permits;
use super::runs::{self, Ending, ExitCode, Followed, Runs, Work};
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
    let mut followed = Followed::default();
    // Runs are locked before anything else: those of leases that end now, and those whose time is over.
    let late = late_runs(session, wish, now, &mut answer).await?;
    let concerned = if wish.may_reclaim { runs_of_ending(session, wish, now).await? } else { Vec::new() };
    let mut runs = Runs::lock(session, &[&late[..], &concerned].concat()).await?;
    let mut work = Work { core, session, change: &mut change, permits: &mut permits, now };
    if wish.may_reclaim {
        leases(&mut work, &mut runs, wish, &mut answer, &mut followed).await?;
    }
    for run in late {
        runs.time_is_over(&mut work, run, &mut followed).await?;
    }
    scheduled(&mut work, wish, &mut answer, &mut followed.readied).await?;
    answer.readied = readied(core, followed.readied);
    answer.run = followed.progress;
    runs.write(&mut work).await?;
    permits.write(session).await?;
    let row = session
        .row(
            "SELECT least((SELECT due_at FROM executr.scheduled ORDER BY due_at LIMIT 1),
                          (SELECT min(due_at) FROM executr.lease WHERE $1),
                          (SELECT deadline FROM executr.run WHERE state = 0 AND deadline IS NOT NULL
                           ORDER BY deadline, seq LIMIT 1))",
            &[&wish.may_reclaim],
        )
        .await?;
    answer.next_at = row.and_then(|row| row.get::<_, Option<i64>>(0)).map(Timestamp);
    session.commit().await?;
    failpoint::pass("sweep.after-commit");
    core.registry.forget_live();
    Ok(answer)
}

/// The runs whose time is over.
async fn late_runs(
    session: &mut Session,
    wish: Wish,
    now: Timestamp,
    answer: &mut Advanced,
) -> Result<Vec<i64>, Fault> {
    let rows = session
        .rows(
            "SELECT seq FROM executr.run WHERE state = 0 AND deadline IS NOT NULL AND deadline <= $1
             ORDER BY deadline, seq LIMIT $2",
            &[&now.0, &(i64::from(wish.limit) + 1)],
        )
        .await?;
    answer.more |= rows.len() > wish.limit as usize;
    Ok(rows.iter().take(wish.limit as usize).map(|row| row.get(0)).collect())
}

/// The runs of jobs that end with their leases now.
async fn runs_of_ending(session: &mut Session, wish: Wish, now: Timestamp) -> Result<Vec<i64>, Fault> {
    let rows = session
        .rows(
            "SELECT run FROM (SELECT run, cancelling, lost FROM executr.lease WHERE due_at <= $1
                              ORDER BY due_at, seq LIMIT $2) AS over
             WHERE run IS NOT NULL AND (cancelling OR lost + 1 >= $3)",
            &[&now.0, &(i64::from(wish.limit) + 1), &(MAX_LOST_LEASES as i32)],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn leases(
    work: &mut Work<'_>,
    runs: &mut Runs,
    wish: Wish,
    answer: &mut Advanced,
    followed: &mut Followed,
) -> Result<(), Fault> {
    let (core, now) = (work.core, work.now);
    let sql = concat!(
        "SELECT ",
        lease_columns!(),
        " FROM executr.lease l WHERE l.due_at <= $1 ORDER BY l.due_at, l.seq LIMIT $2 FOR UPDATE SKIP LOCKED"
    );
    let rows = work.session.rows(sql, &[&now.0, &(i64::from(wish.limit) + 1)]).await?;
    answer.more |= rows.len() > wish.limit as usize;
    let mut over: Vec<LeaseRow> = rows.iter().take(wish.limit as usize).map(|row| LeaseRow::read(row, 0)).collect();
    let ends = |lease: &LeaseRow| lease.cancelling || lease.counts.lost + 1 >= MAX_LOST_LEASES as i32;
    // One that ran out since the runs were locked has its turn the next time.
    let all = over.len();
    over.retain(|lease| !ends(lease) || lease.run.is_none_or(|run| runs.has(run)));
    answer.more |= over.len() < all;
    let of_runs = over.iter().filter(|lease| lease.run.is_some() && ends(lease));
    let jobs: Vec<i64> = of_runs.map(|lease| lease.place.seq).collect();
    runs.load_ends(work.session, &jobs).await?;
    let own = over.iter().filter(|lease| ends(lease)).filter_map(|lease| lease.permit);
    work.permits.lock(work.session, runs.permits().chain(own)).await?;
    let workspaces = workspaces(work.session, over.iter().filter(|lease| !ends(lease))).await?;
    // Before anything else is looked at: what follows in runs finds them as they are now.
    let ending: Vec<Uuid> = over.iter().filter(|lease| ends(lease)).map(|lease| lease.job).collect();
    if !ending.is_empty() {
        work.session.run("DELETE FROM executr.lease WHERE job = ANY($1)", &[&ending]).await?;
    }
    let reclaimable: Vec<Uuid> = over.iter().filter(|lease| !ends(lease)).map(|lease| lease.job).collect();
    if !reclaimable.is_empty() {
        work.session.run("UPDATE executr.lease SET due_at = NULL WHERE job = ANY($1)", &[&reclaimable]).await?;
    }
    for lease in &over {
        core.registry.bucket(work.session, lease.place.bucket).await?;
        if !ends(lease) {
            let mut place = lease.place;
            if let Some(workspace) = workspaces.get(&place.seq) {
                let has_it = Some(lease.worker.as_str());
                place = runs::enter(core, work.session, work.change, *workspace, place, has_it).await?;
                if place != lease.place {
                    runs::move_leases(work.session, &[lease.job], &[place.bucket]).await?;
                    work.change.count(core, lease.place.bucket, Some(JobState::Running), None);
                    work.change.count(core, place.bucket, None, Some(JobState::Running));
                }
            }
            work.change.reclaimable(place, lease.counts);
            followed.readied.push(place.bucket);
            answer.reclaimable.push((JobId(lease.job), lease.worker()));
            continue;
        }
        let counts = Counts { lost: lease.counts.lost + 1, ..lease.counts };
        let (state, reason) = if lease.cancelling {
            (JobState::Cancelled, lease.reason.clone())
        } else {
            (JobState::Failed, Some(lost_too_often(super::coding::small(counts.lost.into()))))
        };
        lease.end_job(core, work.change, state, counts, reason.clone(), lease.end(AttemptStatus::Lost));
        answer.ended.push((JobId(lease.job), state, lease.fence(), lease.worker()));
        followed.freed.extend(lease.permit);
        if lease.run.is_some() {
            runs.let_go(lease.place.seq);
            let attempt = counts.attempt;
            let ending = Ending { state, attempt, exit_code: ExitCode::OfBefore, message: reason };
            runs.ended(work, lease.place.seq, &ending, followed).await?;
        }
        followed.give_back(runs, work).await?;
    }
    Ok(())
}

/// The workspaces of these leases' jobs, by the jobs' numbers.
async fn workspaces(
    session: &mut Session,
    leases: impl Iterator<Item = &LeaseRow>,
) -> Result<HashMap<i64, i64>, Fault> {
    let of_runs: Vec<i64> = leases.filter(|lease| lease.run.is_some()).map(|lease| lease.place.seq).collect();
    if of_runs.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = "SELECT seq, workspace FROM executr.job WHERE seq = ANY($1) AND workspace IS NOT NULL";
    Ok(session.rows(sql, &[&of_runs]).await?.iter().map(|row| (row.get(0), row.get(1))).collect())
}

async fn scheduled(work: &mut Work<'_>, wish: Wish, answer: &mut Advanced, freed: &mut Vec<i32>) -> Result<(), Fault> {
    let Work { core, session, change, permits, now } = work;
    let rows = session
        .rows(
            "SELECT s.seq, j.bucket, s.attempt, s.failures, s.lost, j.permit, j.permit_limit, j.workspace
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
        let workspace: Option<i64> = row.get(7);
        match permit {
            Some(id) if !permits.take(id, limit) => {
                change.blocked_in_run(place, counts, (id, limit, bucket.priority.rank()), workspace);
                change.count(core, place.bucket, Some(JobState::Scheduled), Some(JobState::Blocked));
            }
            _ => {
                let entered = match workspace {
                    Some(workspace) => runs::enter(core, session, change, workspace, place, None).await?,
                    None => place,
                };
                change.ready(entered, counts);
                change.count(core, place.bucket, Some(JobState::Scheduled), None);
                change.count(core, entered.bucket, None, Some(JobState::Ready));
                freed.push(entered.bucket);
            }
        }
        moved.push(place.seq);
    }
    if !moved.is_empty() {
        session.run("DELETE FROM executr.scheduled WHERE seq = ANY($1)", &[&moved]).await?;
    }
    Ok(())
}
