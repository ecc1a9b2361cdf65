//! What the worker of a job of a run is told of the run.

use std::collections::{BTreeMap, HashMap};

use executr_api::{Need, NeedResult, RunEventKind, WorkspaceId};
use executr_spec::{JobId, RunId};
use uuid::Uuid;

use super::artifact::{ARTIFACT, artifact};
use super::event::News;
use crate::ClaimedRun;
use crate::lifecycle::graph::LEASE_RAN_OUT;
use crate::postgres::coding::{self, damaged, from_json, small};
use crate::postgres::fault::Fault;
use crate::postgres::lease::LeaseRow;
use crate::postgres::session::{Session, step};

/// A job's place in its run, and what it has of it.
pub(in crate::postgres) struct Context {
    run: i64,
    name: String,
    claimed: ClaimedRun,
}

impl Context {
    /// What its worker is told.
    pub(in crate::postgres) fn claimed(&self, workspace: Option<WorkspaceId>) -> ClaimedRun {
        ClaimedRun { workspace, ..self.claimed.clone() }
    }

    /// The job is handed out; `lost` is the attempt that was revoked for it.
    pub(in crate::postgres) fn tell(&self, lease: &LeaseRow, lost: Option<u32>, news: &mut News) -> Result<(), Fault> {
        if let Some(attempt) = lost {
            let message = Some(LEASE_RAN_OUT.to_owned());
            news.tell(self.run, &RunEventKind::JobRetrying { job: self.name.clone(), attempt, message })?;
        }
        let (attempt, worker) = (small(lease.counts.attempt.into()), lease.worker());
        news.tell(self.run, &RunEventKind::JobStarted { job: self.name.clone(), attempt, worker })
    }

    pub(in crate::postgres) fn run_id(&self) -> RunId {
        self.claimed.run
    }
}

/// What these jobs of runs have of them, by their numbers. All that they need is final.
pub(in crate::postgres) async fn contexts(
    session: &mut Session,
    jobs: &Vec<i64>,
) -> Result<HashMap<i64, Context>, Fault> {
    if jobs.is_empty() {
        return Ok(HashMap::new());
    }
    let mut read = session
        .read_all(vec![
            step!(
                "SELECT rj.seq, rj.run, rj.name, rj.inputs, r.id FROM executr.run_job rj
                 JOIN executr.run r ON r.seq = rj.run WHERE rj.seq = ANY($1)",
                jobs
            ),
            step!(NEEDS, jobs),
        ])
        .await?
        .into_iter();
    let (rows, need_rows) = (read.next().unwrap_or_default(), read.next().unwrap_or_default());
    let mut needs = gather_needs(&need_rows)?;
    let mut contexts = HashMap::with_capacity(rows.len());
    let (mut wanting, mut places, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for row in &rows {
        let seq: i64 = row.get(0);
        if let Some(inputs) = row.get::<_, Option<&str>>(3) {
            for (place, name) in from_json::<Vec<(i32, String)>>(inputs)? {
                wanting.push(seq);
                places.push(place);
                names.push(coding::text(&name));
            }
        }
        let claimed = ClaimedRun {
            run: RunId(row.get(4)),
            needs: needs.remove(&seq).unwrap_or_default(),
            artifacts: Vec::new(),
            workspace: None,
        };
        contexts.insert(seq, Context { run: row.get(1), name: row.get(2), claimed });
    }
    if !wanting.is_empty() {
        let runs: Vec<Option<i64>> = wanting.iter().map(|seq| contexts.get(seq).map(|context| context.run)).collect();
        let sql = format!(
            "SELECT asked.seq, {ARTIFACT} FROM unnest($1::bigint[], $2::bigint[], $3::int[], $4::text[])
                  WITH ORDINALITY AS asked (seq, run, place, name, n)
             JOIN executr.artifact a ON a.run = asked.run AND a.place = asked.place AND a.name = asked.name
             ORDER BY asked.n"
        );
        for row in session.rows(sql, &[&wanting, &runs, &places, &names]).await? {
            if let Some(context) = contexts.get_mut(&row.get(0)) {
                context.claimed.artifacts.push(artifact(&row, 1)?);
            }
        }
    }
    Ok(contexts)
}

/// The direct needs of jobs, that are final. (`OFFSET 0`: each is looked up by its place. While the server believes that runs
/// are small it would go through the whole run instead.)
pub(super) const NEEDS: &str = "SELECT rj.seq, n.name, e.state, h.outputs
     FROM executr.run_job rj CROSS JOIN LATERAL unnest(rj.needs) AS need (place)
     CROSS JOIN LATERAL (SELECT n.seq, n.name FROM executr.run_job n
                         WHERE n.run = rj.run AND n.place = need.place OFFSET 0) AS n
     JOIN executr.ended e ON e.seq = n.seq LEFT JOIN executr.handed h ON h.seq = n.seq
     WHERE rj.seq = ANY($1)";

/// The rows of [`NEEDS`], by job and name.
pub(super) fn gather_needs(rows: &[tokio_postgres::Row]) -> Result<HashMap<i64, BTreeMap<String, Need>>, Fault> {
    let mut needs: HashMap<i64, BTreeMap<String, Need>> = HashMap::new();
    for row in rows {
        let result = NeedResult::of(coding::state(row.get(2))?);
        let result = result.ok_or_else(|| damaged("a final job that isn't".to_owned()))?;
        let outputs = row.get::<_, Option<&str>>(3).map(from_json).transpose()?.unwrap_or_default();
        needs.entry(row.get(0)).or_default().insert(row.get(1), Need { result, outputs });
    }
    Ok(needs)
}

/// What the claims of these jobs brought, as far as they are held by a worker.
pub(super) async fn claimed_runs(session: &mut Session, jobs: &[JobId]) -> Result<Vec<(JobId, ClaimedRun)>, Fault> {
    let ids: Vec<Uuid> = jobs.iter().map(|job| job.0).collect();
    let rows = session
        .rows(
            "SELECT l.job, l.seq, held.executor, held.generation FROM executr.lease l
             LEFT JOIN LATERAL (
                 SELECT w.executor, its.generation FROM executr.job j JOIN executr.workspace w ON w.id = j.workspace
                 CROSS JOIN LATERAL (
                     SELECT h.generation FROM executr.workspace_holder h
                     WHERE h.workspace = w.id AND h.worker = l.worker
                     UNION ALL SELECT x.generation FROM executr.workspace_released x
                     WHERE x.run = w.run AND x.executor = w.executor AND x.worker = l.worker
                 ) AS its WHERE j.seq = l.seq ORDER BY its.generation DESC LIMIT 1) AS held ON true
             WHERE l.job = ANY($1) AND l.run IS NOT NULL",
            &[&ids],
        )
        .await?;
    let seqs: Vec<i64> = rows.iter().map(|row| row.get(1)).collect();
    let contexts = contexts(session, &seqs).await?;
    let mut found: HashMap<Uuid, ClaimedRun> = HashMap::new();
    for row in &rows {
        let Some(context) = contexts.get(&row.get(1)) else { continue };
        let run = context.run_id();
        let workspace = row.get::<_, Option<String>>(2).map(|executor| {
            let generation = small(row.get::<_, Option<i32>>(3).unwrap_or(0).into());
            WorkspaceId { run, executor, generation }
        });
        found.insert(row.get(0), context.claimed(workspace));
    }
    Ok(jobs.iter().filter_map(|job| Some((*job, found.remove(&job.0)?))).collect())
}
