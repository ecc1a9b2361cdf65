//! Which worker holds the workspaces of runs.
//!
//! Only claims make a worker the holder. They hold the job's row of the ready set first and then the holder's. Whoever
//! else makes a job ready looks at the holder without a lock: should it change in this moment, the claim of that job finds
//! out, and puts it where it belongs.

use std::collections::HashMap;

use executr_api::{JobState, WorkspaceId};
use executr_spec::{RunId, Timestamp, WorkerId};
use uuid::Uuid;

use crate::lifecycle::graph::pinned_class;
use crate::postgres::change::{Change, Counts, Place, readied};
use crate::postgres::coding::{small, text};
use crate::postgres::core::Core;
use crate::postgres::fault::Fault;
use crate::postgres::registry::Bucket;
use crate::postgres::session::Session;
use crate::postgres::take::Taken;
use crate::{Claim, RunProgress, WorkspaceRecord};

/// Where a job that uses a workspace belongs in the ready set. `has_it` is the worker under whose lease, which ran out, it
/// still is. Its place is changed with it; how many jobs are where is for the caller to count.
pub(in crate::postgres) async fn enter(
    core: &Core,
    session: &mut Session,
    change: &mut Change,
    workspace: i64,
    place: Place,
    has_it: Option<&str>,
) -> Result<Place, Fault> {
    let sql = "SELECT worker FROM executr.workspace_holder WHERE workspace = $1";
    let holder: Option<String> = session.row(sql, &[&workspace]).await?.and_then(|row| row.get(0));
    let mut missing = Vec::new();
    let to = belongs(core, session, place, holder.as_deref(), has_it, &mut missing).await?;
    make(core, session, missing).await?;
    if to != place {
        change.moved(to);
    }
    Ok(to)
}

/// Where a job belongs. A bucket that there isn't gets into `missing`.
async fn belongs(
    core: &Core,
    session: &mut Session,
    place: Place,
    holder: Option<&str>,
    has_it: Option<&str>,
    missing: &mut Vec<Bucket>,
) -> Result<Place, Fault> {
    let bucket = core.registry.bucket(session, place.bucket).await?;
    // What only a newer program understands stays where it is.
    let Some(class) = &bucket.class else { return Ok(place) };
    let worker = |id: &str| WorkerId(id.to_owned());
    let wanted = pinned_class(class, holder.map(worker).as_ref(), has_it.map(worker).as_ref());
    if wanted == *class {
        return Ok(place);
    }
    let wanted = Bucket { class: Some(wanted), ..(*bucket).clone() };
    match core.registry.id(&wanted) {
        Some(bucket) => Ok(Place { bucket, ..place }),
        None => {
            missing.push(wanted);
            Ok(place)
        }
    }
}

/// Makes buckets that there weren't, outside of the transaction: what it did so far is done again after that.
async fn make(core: &Core, session: &mut Session, missing: Vec<Bucket>) -> Result<(), Fault> {
    if missing.is_empty() {
        return Ok(());
    }
    session.roll_back().await;
    core.registry.ids(session, &missing).await?;
    Err(Fault::Again("jobs of a run wait for a worker of their own".to_owned()))
}

/// What became of a job with a workspace that a claim took out of the ready set.
pub(in crate::postgres) enum Held {
    /// The claim's worker gets it.
    Taken(WorkspaceId),
    /// Likewise, and holds the workspace from now on: the others that use it are to be moved.
    Gained(WorkspaceId),
    /// It belongs to another worker, and was put back for that.
    PutBack,
}

/// The claim's worker gets a job: it holds the workspace from now on, unless another one does, to whom the job belongs.
pub(in crate::postgres) async fn hold(
    core: &Core,
    session: &mut Session,
    now: Timestamp,
    claim: &Claim,
    job: &mut Taken,
    workspace: i64,
    progress: &mut Moved,
) -> Result<Held, Fault> {
    let row = session
        .row(
            "SELECT h.worker, h.generation, w.executor, w.run, r.id FROM executr.workspace_holder h
             JOIN executr.workspace w ON w.id = h.workspace JOIN executr.run r ON r.seq = w.run
             WHERE h.workspace = $1 FOR UPDATE OF h",
            &[&workspace],
        )
        .await?;
    let row = row.ok_or_else(|| Fault::Again("a workspace went away".to_owned()))?;
    let (holder, mut generation): (Option<String>, i32) = (row.get(0), row.get(1));
    let (executor, run): (String, i64) = (row.get(2), row.get(3));
    let has_it = job.old.as_ref().map(|lease| lease.worker.as_str());
    let mut missing = Vec::new();
    let to = belongs(core, session, job.place, holder.as_deref(), has_it, &mut missing).await?;
    make(core, session, missing).await?;
    let state = if job.old.is_some() { JobState::Running } else { JobState::Ready };
    if to != job.place {
        let mut change = Change::default();
        change.count(core, job.place.bucket, Some(state), None);
        change.count(core, to.bucket, None, Some(state));
        change.moved(to);
        let class = core.registry.bucket(session, to.bucket).await?.class.clone();
        let fits = class.is_some_and(|class| class.requirements().met_by(&claim.offers));
        if !fits {
            match &job.old {
                Some(lease) => {
                    change.reclaimable(to, lease.counts);
                    move_leases(session, &[lease.job], &[to.bucket]).await?;
                }
                None => change.ready(to, job.counts),
            }
        }
        progress.buckets.push(to.bucket);
        change.write(core, session, now, Vec::new()).await?;
        if !fits {
            return Ok(Held::PutBack);
        }
        job.place = to;
    }
    let id = |generation: i32| WorkspaceId {
        run: RunId(row.get(4)),
        executor: executor.clone(),
        generation: small(generation.into()),
    };
    let worker = text(&claim.worker.0);
    if holder.as_deref() != Some(worker.as_str()) {
        if let Some(before) = holder {
            session
                .run(
                    "INSERT INTO executr.workspace_released (run, executor, generation, worker) VALUES ($1, $2, $3, $4)",
                    &[&run, &executor, &generation, &before],
                )
                .await?;
            progress.released.push((id(generation), WorkerId(before)));
            generation += 1;
        }
        session
            .run(
                "UPDATE executr.workspace_holder SET worker = $2, generation = $3 WHERE workspace = $1",
                &[&workspace, &worker, &generation],
            )
            .await?;
        return Ok(Held::Gained(id(generation)));
    }
    Ok(Held::Taken(id(generation)))
}

/// What claims did to workspaces besides.
#[derive(Default)]
pub(in crate::postgres) struct Moved {
    /// The buckets to which jobs were moved.
    pub(in crate::postgres) buckets: Vec<i32>,
    pub(in crate::postgres) released: Vec<(WorkspaceId, WorkerId)>,
}

/// Moves those in the ready set to where the workspace is now. Those that are being claimed in this moment are left: their
/// claim sees to it. Returns the buckets to which they were moved.
pub(in crate::postgres) async fn move_users(
    core: &Core,
    session: &mut Session,
    now: Timestamp,
    workspace: i64,
    holder: Option<&str>,
) -> Result<Vec<i32>, Fault> {
    let rows = session
        .rows(
            "SELECT r.bucket, r.seq, r.attempt, r.failures, r.lost, r.reclaim, j.id FROM executr.job j
             JOIN executr.ready r ON r.bucket = j.bucket AND r.seq = j.seq
             WHERE j.workspace = $1 ORDER BY r.seq FOR UPDATE OF r SKIP LOCKED",
            &[&workspace],
        )
        .await?;
    let lost: Vec<Uuid> = rows.iter().filter(|row| row.get(5)).map(|row| row.get(6)).collect();
    let sql = "SELECT job, worker FROM executr.lease WHERE job = ANY($1)";
    let workers: HashMap<Uuid, String> = match lost.is_empty() {
        true => HashMap::new(),
        false => session.rows(sql, &[&lost]).await?.iter().map(|row| (row.get(0), row.get(1))).collect(),
    };
    let mut change = Change::default();
    let (mut missing, mut buckets) = (Vec::new(), Vec::new());
    let (mut leased, mut leased_to) = (Vec::new(), Vec::new());
    for row in &rows {
        let place = Place { bucket: row.get(0), seq: row.get(1) };
        let counts = Counts { attempt: row.get(2), failures: row.get(3), lost: row.get(4) };
        let (reclaim, job): (bool, Uuid) = (row.get(5), row.get(6));
        let has_it = workers.get(&job).filter(|_| reclaim).map(String::as_str);
        let to = belongs(core, session, place, holder, has_it, &mut missing).await?;
        if to == place {
            continue;
        }
        let state = if reclaim { JobState::Running } else { JobState::Ready };
        change.unready(place);
        if reclaim {
            change.reclaimable(to, counts);
            leased.push(job);
            leased_to.push(to.bucket);
        } else {
            change.ready(to, counts);
        }
        change.count(core, place.bucket, Some(state), None);
        change.count(core, to.bucket, None, Some(state));
        change.moved(to);
        buckets.push(to.bucket);
    }
    make(core, session, missing).await?;
    move_leases(session, &leased, &leased_to).await?;
    change.write(core, session, now, Vec::new()).await?;
    Ok(buckets)
}

/// The jobs of these leases wait in other buckets.
pub(in crate::postgres) async fn move_leases(
    session: &mut Session,
    jobs: &[Uuid],
    buckets: &[i32],
) -> Result<(), Fault> {
    if !jobs.is_empty() {
        session
            .run(
                "UPDATE executr.lease l SET bucket = new.bucket
                 FROM unnest($1::uuid[], $2::int[]) AS new (job, bucket) WHERE l.job = new.job",
                &[&jobs, &buckets],
            )
            .await?;
    }
    Ok(())
}

/// A job that used it became final. The workspace is released when it was the last; tells who held it.
pub(super) async fn used_no_more(
    session: &mut Session,
    workspace: i64,
    run_id: RunId,
) -> Result<Option<(WorkspaceId, WorkerId)>, Fault> {
    let sql = "UPDATE executr.workspace SET users = users - 1 WHERE id = $1 RETURNING users, run, executor";
    let Some(row) = session.row(sql, &[&workspace]).await? else { return Ok(None) };
    if row.get::<_, i64>(0) > 0 {
        return Ok(None);
    }
    let (run, executor): (i64, String) = (row.get(1), row.get(2));
    let row = session
        .row(
            "WITH held AS MATERIALIZED (
                 SELECT workspace, generation, worker FROM executr.workspace_holder
                 WHERE workspace = $1 AND worker IS NOT NULL FOR UPDATE),
             gone AS (UPDATE executr.workspace_holder h SET worker = NULL FROM held WHERE h.workspace = held.workspace)
             INSERT INTO executr.workspace_released (run, executor, generation, worker)
             SELECT $2, $3, generation, worker FROM held RETURNING generation, worker",
            &[&workspace, &run, &executor],
        )
        .await?;
    Ok(row.map(|row| {
        let id = WorkspaceId { run: run_id, executor, generation: small(row.get::<_, i32>(0).into()) };
        (id, WorkerId(row.get(1)))
    }))
}

/// What a worker holds, and what it should clean up.
pub(super) async fn of_worker(session: &mut Session, worker: &WorkerId) -> Result<Vec<WorkspaceRecord>, Fault> {
    let rows = session
        .rows(
            "SELECT r.id, w.executor, h.generation, false FROM executr.workspace_holder h
             JOIN executr.workspace w ON w.id = h.workspace JOIN executr.run r ON r.seq = w.run WHERE h.worker = $1
             UNION ALL
             SELECT r.id, x.executor, x.generation, true FROM executr.workspace_released x
             JOIN executr.run r ON r.seq = x.run WHERE x.worker = $1 AND NOT r.deleted",
            &[&text(&worker.0)],
        )
        .await?;
    let mut records: Vec<WorkspaceRecord> = rows
        .iter()
        .map(|row| WorkspaceRecord {
            id: WorkspaceId {
                run: RunId(row.get(0)),
                executor: row.get(1),
                generation: small(row.get::<_, i32>(2).into()),
            },
            worker: worker.clone(),
            released: row.get(3),
        })
        .collect();
    records.sort_unstable_by(|one, other| one.id.cmp(&other.id));
    Ok(records)
}

/// Forgets what a worker has cleaned up.
pub(super) async fn cleaned(session: &mut Session, done: &(WorkerId, Vec<WorkspaceId>)) -> Result<(), Fault> {
    let (worker, workspaces) = done;
    let runs: Vec<Uuid> = workspaces.iter().map(|id| id.run.0).collect();
    let executors: Vec<&str> = workspaces.iter().map(|id| id.executor.as_str()).collect();
    let generations: Vec<i32> = workspaces.iter().map(|id| i32::try_from(id.generation).unwrap_or(i32::MAX)).collect();
    session
        .run(
            "DELETE FROM executr.workspace_released x
             USING unnest($1::uuid[], $2::text[], $3::int[]) AS done (run, executor, generation)
             JOIN executr.run r ON r.id = done.run
             WHERE x.run = r.seq AND x.executor = done.executor AND x.generation = done.generation AND x.worker = $4",
            &[&runs, &executors, &generations, &text(&worker.0)],
        )
        .await?;
    Ok(())
}

/// These workers are lost: nobody holds their workspaces any more, and nobody cleans up.
pub(super) async fn lose(core: &Core, session: &mut Session, workers: &[WorkerId]) -> Result<RunProgress, Fault> {
    let names: Vec<String> = workers.iter().map(|worker| text(&worker.0)).collect();
    let now = session.begin(core.clock_offset()).await?;
    session.run("DELETE FROM executr.workspace_released WHERE worker = ANY($1)", &[&names]).await?;
    let rows = session
        .rows(
            "WITH lost AS MATERIALIZED (
                 SELECT workspace FROM executr.workspace_holder WHERE worker = ANY($1) ORDER BY workspace FOR UPDATE)
             UPDATE executr.workspace_holder h SET worker = NULL, generation = generation + 1
             FROM lost WHERE h.workspace = lost.workspace RETURNING h.workspace",
            &[&names],
        )
        .await?;
    let mut buckets = Vec::new();
    for row in rows {
        buckets.extend(move_users(core, session, now, row.get(0), None).await?);
    }
    session.commit().await?;
    Ok(RunProgress { readied: readied(core, buckets), ..RunProgress::default() })
}
