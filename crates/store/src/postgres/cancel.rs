//! Cancelling: at once what waits, by word to its worker what runs.

use std::collections::{HashMap, HashSet};

use executr_api::{JobState, failpoint};
use executr_spec::JobId;
use tokio_postgres::Row;
use uuid::Uuid;

use super::change::{Change, Counts, JobEnd, Place, readied};
use super::coding::{self, text};
use super::core::Core;
use super::fault::Fault;
use super::lease::{LeaseRow, lease_columns};
use super::permits::Permits;
use super::runs::{Ending, ExitCode, Followed, Runs, Work};
use super::session::Session;
use crate::{CancelAnswer, Cancelled};

/// What is asked.
pub(super) struct Wish {
    pub(super) jobs: Vec<JobId>,
    pub(super) pending_only: bool,
    pub(super) reason: String,
}

/// So many jobs without a concurrency key are cancelled in one transaction.
const MOST: usize = 1_000;
/// So often a job that goes from one place to another is looked for.
const MOST_LOOKS: u32 = 50;

/// A job that is to be cancelled.
#[derive(Clone, Copy, Debug)]
struct Target {
    id: Uuid,
    place: Place,
    permit: Option<i64>,
    run: Option<i64>,
}

impl Target {
    /// Whether cancelling it may do something to others.
    fn is_alone(&self) -> bool {
        self.permit.is_none() && self.run.is_none()
    }
}

/// Cancels jobs. Jobs with concurrency keys and those of runs are taken one by one, because cancelling one may make the next
/// one ready, or end it.
pub(super) async fn cancel(core: &Core, session: &mut Session, wish: &Wish) -> Result<Vec<CancelAnswer>, Fault> {
    let ids: Vec<Uuid> = wish.jobs.iter().map(|id| id.0).collect();
    let sql = "SELECT id, seq, bucket, permit, run FROM executr.job WHERE id = ANY($1)";
    let mut targets = HashMap::new();
    for row in session.rows(sql, &[&ids]).await? {
        let place = Place { seq: row.get(1), bucket: row.get(2) };
        targets.insert(row.get::<_, Uuid>(0), Target { id: row.get(0), place, permit: row.get(3), run: row.get(4) });
    }
    for target in targets.values() {
        core.registry.bucket(session, target.place.bucket).await?;
    }
    let reason = text(&wish.reason);
    let batch_wish = Batch { pending_only: wish.pending_only, reason: &reason };
    let mut answers: Vec<CancelAnswer> = Vec::with_capacity(ids.len());
    let mut rest = &ids[..];
    while let Some(first) = rest.first() {
        // As many as are alone, and none of them twice, or one that isn't.
        let is_alone = |id: &Uuid| targets.get(id).is_none_or(Target::is_alone);
        let mut batch = 1;
        if is_alone(first) {
            let mut seen = HashSet::from([*first]);
            while batch < rest.len().min(MOST) && is_alone(&rest[batch]) && seen.insert(rest[batch]) {
                batch += 1;
            }
        }
        let (now, next) = rest.split_at(batch);
        rest = next;
        let chosen: Vec<Target> = now.iter().filter_map(|id| targets.get(id)).copied().collect();
        let mut done = cancel_batch(core, session, &chosen, &batch_wish).await?;
        answers.extend(now.iter().map(|id| done.remove(id).unwrap_or(CancelAnswer::NotFound)));
    }
    failpoint::pass("cancel.after-commit");
    Ok(answers)
}

/// How the jobs of a batch are cancelled.
struct Batch<'a> {
    pending_only: bool,
    reason: &'a str,
}

/// Cancels jobs in one transaction. A job that goes from one place to another meanwhile is looked for again.
async fn cancel_batch(
    core: &Core,
    session: &mut Session,
    targets: &[Target],
    wish: &Batch<'_>,
) -> Result<HashMap<Uuid, CancelAnswer>, Fault> {
    let mut answers = HashMap::new();
    for _ in 0..MOST_LOOKS {
        let now = session.begin(core.clock_offset()).await?;
        let mut change = Change::default();
        let mut permits = Permits::default();
        let open = unanswered(targets, &answers);
        let of_runs: Vec<i64> = open.iter().filter_map(|target| target.run).collect();
        let mut runs = Runs::lock(session, &of_runs).await?;
        ask_running(core, session, &mut change, &open, wish, &mut answers).await?;
        let open = unanswered(targets, &answers);
        let mut work = Work { core, session, change: &mut change, permits: &mut permits, now };
        end_waiting(&mut work, &mut runs, &open, wish, &mut answers).await?;
        runs.write(&mut work).await?;
        permits.write(session).await?;
        session.commit().await?;
        find_final(session, &unanswered(targets, &answers), &mut answers).await?;
        if answers.len() == targets.len() {
            return Ok(answers);
        }
    }
    Err(Fault::Again("a job that is to be cancelled moves all the time".to_owned()))
}

fn unanswered(targets: &[Target], answers: &HashMap<Uuid, CancelAnswer>) -> Vec<Target> {
    targets.iter().filter(|target| !answers.contains_key(&target.id)).copied().collect()
}

/// Tells running jobs to stop; with `pending_only` only finds them.
async fn ask_running(
    core: &Core,
    session: &mut Session,
    change: &mut Change,
    targets: &[Target],
    wish: &Batch<'_>,
    answers: &mut HashMap<Uuid, CancelAnswer>,
) -> Result<(), Fault> {
    let ids: Vec<Uuid> = targets.iter().map(|target| target.id).collect();
    if wish.pending_only {
        for row in session.rows("SELECT job FROM executr.lease WHERE job = ANY($1)", &[&ids]).await? {
            answers.insert(row.get(0), CancelAnswer::Running);
        }
        return Ok(());
    }
    let sql =
        concat!("SELECT ", lease_columns!(), " FROM executr.lease l WHERE l.job = ANY($1) ORDER BY l.job FOR UPDATE");
    let rows = session.rows(sql, &[&ids]).await?;
    let mut asked = Vec::new();
    for lease in rows.iter().map(|row| LeaseRow::read(row, 0)) {
        answers.insert(lease.job, CancelAnswer::Cancelling { fence: lease.fence(), worker: lease.worker() });
        if lease.cancelling {
            // The first reason stays.
            continue;
        }
        if lease.is_reclaimable() {
            change.unready(lease.place);
        }
        change.count(core, lease.place.bucket, Some(JobState::Running), Some(JobState::Cancelling));
        asked.push(lease.job);
    }
    if !asked.is_empty() {
        session
            .run(
                "UPDATE executr.lease SET cancelling = true, due_at = expires_at, reason = $2 WHERE job = ANY($1)",
                &[&asked, &wish.reason],
            )
            .await?;
    }
    Ok(())
}

/// Ends those of the jobs that wait somewhere.
async fn end_waiting(
    work: &mut Work<'_>,
    runs: &mut Runs,
    targets: &[Target],
    wish: &Batch<'_>,
    answers: &mut HashMap<Uuid, CancelAnswer>,
) -> Result<(), Fault> {
    if targets.is_empty() {
        return Ok(());
    }
    let of_runs: Vec<i64> =
        targets.iter().filter(|target| target.run.is_some()).map(|target| target.place.seq).collect();
    runs.load_ends(work.session, &of_runs).await?;
    let Work { core, session, permits, .. } = &mut *work;
    let seqs: Vec<i64> = targets.iter().map(|target| target.place.seq).collect();
    let buckets: Vec<i32> = targets.iter().map(|target| target.place.bucket).collect();
    let mut ended: HashMap<i64, (JobState, Counts)> = HashMap::new();
    let mut note = |rows: Vec<Row>, state: JobState| {
        for row in rows {
            ended.insert(row.get(0), (state, Counts { attempt: row.get(1), failures: row.get(2), lost: row.get(3) }));
        }
    };
    // Whoever frees a blocked job holds its key.
    permits.lock(session, runs.permits().chain(targets.iter().filter_map(|target| target.permit))).await?;
    let rows = session
        .rows(
            "DELETE FROM executr.ready r USING unnest($1::int[], $2::bigint[]) AS gone (bucket, seq)
             WHERE r.bucket = gone.bucket AND r.seq = gone.seq AND NOT r.reclaim
             RETURNING r.seq, r.attempt, r.failures, r.lost",
            &[&buckets, &seqs],
        )
        .await?;
    note(rows, JobState::Ready);
    let rows = session
        .rows("DELETE FROM executr.scheduled WHERE seq = ANY($1) RETURNING seq, attempt, failures, lost", &[&seqs])
        .await?;
    note(rows, JobState::Scheduled);
    let rows = session
        .rows("DELETE FROM executr.blocked WHERE seq = ANY($1) RETURNING seq, attempt, failures, lost", &[&seqs])
        .await?;
    note(rows, JobState::Blocked);
    let core = *core;
    for target in targets {
        let job = target.place.seq;
        let waits = runs.no_longer_waits(job)?.then_some((JobState::Waiting, Counts::default()));
        let Some((from, counts)) = waits.or_else(|| ended.remove(&job)) else { continue };
        work.change.count(core, target.place.bucket, Some(from), Some(JobState::Cancelled));
        let reason = Some(wish.reason.to_owned());
        work.change.ended(JobEnd { seq: job, state: JobState::Cancelled, counts, reason: reason.clone(), last: None });
        let mut followed = Followed::freeing(target.permit.filter(|_| from == JobState::Ready));
        if target.run.is_some() {
            let (state, attempt) = (JobState::Cancelled, counts.attempt);
            let ending = Ending { state, attempt, exit_code: ExitCode::OfBefore, message: reason };
            runs.ended(work, job, &ending, &mut followed).await?;
        }
        followed.give_back(runs, work).await?;
        let readied = readied(core, followed.readied);
        answers.insert(target.id, CancelAnswer::Cancelled(Cancelled { readied, run: followed.progress }));
    }
    Ok(())
}

/// Finds those of the jobs that are final, or gone.
async fn find_final(
    session: &mut Session,
    targets: &[Target],
    answers: &mut HashMap<Uuid, CancelAnswer>,
) -> Result<(), Fault> {
    if targets.is_empty() {
        return Ok(());
    }
    let seqs: Vec<i64> = targets.iter().map(|target| target.place.seq).collect();
    let rows = session
        .rows(
            "SELECT asked.seq, j.seq IS NOT NULL, e.state FROM unnest($1::bigint[]) AS asked (seq)
             LEFT JOIN executr.job j ON j.seq = asked.seq LEFT JOIN executr.ended e ON e.seq = asked.seq",
            &[&seqs],
        )
        .await?;
    for row in rows {
        let Some(target) = targets.iter().find(|target| target.place.seq == row.get::<_, i64>(0)) else { continue };
        match row.get::<_, Option<i16>>(2) {
            Some(state) => drop(answers.insert(target.id, CancelAnswer::Final(coding::state(state)?))),
            None if !row.get::<_, bool>(1) => drop(answers.insert(target.id, CancelAnswer::NotFound)),
            None => {}
        }
    }
    Ok(())
}
