//! The runs that a transaction deals with, locked until its end, and what was read of their graphs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use executr_api::{Fence, JobState, RunState};
use executr_spec::{JobId, RunId, Timestamp};
use tokio_postgres::Row;
use uuid::Uuid;

use super::artifact::Handing;
use super::code;
use super::event::Told;
use crate::Gate;
use crate::lifecycle::graph::{Before, Stop};
use crate::postgres::change::Counts;
use crate::postgres::coding::{damaged, unsigned};
use crate::postgres::core::Core;
use crate::postgres::fault::Fault;
use crate::postgres::session::Session;

/// After so many looks for what comes next, all that is left of a run is read.
const MOST_LOOKS: u32 = 8;

/// A job of a run that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    /// So many of its needs aren't final.
    pub(super) needs: i32,
    /// Whether the coordinator is asked about it.
    pub(super) asked: bool,
}

/// A job's place in its run's graph.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) seq: i64,
    pub(super) job: JobId,
    pub(super) bucket: i32,
    /// The key and its limit.
    pub(super) permit: Option<(i64, i64)>,
    pub(super) workspace: Option<i64>,
    pub(super) name: String,
    pub(super) gate: Gate,
    pub(super) continue_on_error: bool,
    pub(super) successors: Vec<i32>,
    pub(super) before: Before,
    pub(super) wait: Option<Wait>,
    /// It was taken from where it stood, because its run stops, and is about to be cancelled.
    pub(super) stopped: Option<Stopped>,
    /// It was done in an earlier run, and is about to be completed.
    pub(super) is_done: bool,
    /// How it ended, if that was in this transaction.
    pub(super) end: Option<JobState>,
}

/// Where a stopped job stood.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopped {
    pub(super) from: JobState,
    pub(super) counts: Counts,
    /// Of its last attempt that brought a result.
    pub(super) exit_code: Option<i32>,
}

/// A locked run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) seq: i64,
    pub(super) last_seq: i64,
    pub(super) id: RunId,
    pub(super) tenant: String,
    pub(super) name: String,
    pub(super) state: RunState,
    /// It is asked to stop at once, in this transaction: after it, it has no job left that could start.
    pub(super) at_once: bool,
    pub(super) fail_fast: bool,
    /// The failure that is about to be told stops it, and is not the first.
    pub(super) stops_late: bool,
    pub(super) timeout: Option<i64>,
    pub(super) created_at: i64,
    pub(super) started_at: Option<i64>,
    pub(super) completed_at: Option<i64>,
    pub(super) message: Option<String>,
    pub(super) last_event: i64,
    pub(super) buckets: Vec<i32>,
    pub(super) jobs: i64,
    pub(super) waiting: i64,
    pub(super) completed: i64,
    pub(super) failed: i64,
    pub(super) cancelled: i64,
    pub(super) skipped: i64,
    /// Of the failed ones those that count as failures.
    pub(super) failures: i64,
    pub(super) nodes: BTreeMap<i32, Node>,
    /// The places whose waiting changed since it was written.
    pub(super) touched: BTreeSet<i32>,
    /// The places of jobs that stop and whose ends aren't told yet.
    pub(super) stopped: BTreeSet<i32>,
    /// Whether its row is to be written.
    pub(super) changed: bool,
    /// Recorded by this transaction: all its nodes are here, and none of its waiting is in the database.
    pub(super) is_new: bool,
    looks: u32,
}

impl Run {
    /// A run that is about to be recorded.
    pub(super) fn new(seq: i64, last_seq: i64, run: &crate::NewRun, now: Timestamp) -> Self {
        Self {
            seq,
            last_seq,
            id: run.id,
            tenant: run.tenant.as_str().to_owned(),
            name: run.name.clone(),
            state: RunState::Running,
            at_once: false,
            fail_fast: run.fail_fast,
            stops_late: false,
            timeout: run.timeout.map(|timeout| i64::try_from(timeout.as_micros()).unwrap_or(i64::MAX)),
            created_at: now.0,
            started_at: None,
            completed_at: None,
            message: None,
            last_event: 0,
            buckets: Vec::new(),
            jobs: run.jobs.len() as i64,
            waiting: run.jobs.len() as i64,
            completed: 0,
            failed: 0,
            cancelled: 0,
            skipped: 0,
            failures: 0,
            nodes: BTreeMap::new(),
            touched: BTreeSet::new(),
            stopped: BTreeSet::new(),
            changed: false,
            is_new: true,
            looks: 0,
        }
    }

    fn read(row: &Row) -> Result<Self, Fault> {
        Ok(Self {
            seq: row.get(0),
            last_seq: row.get(1),
            id: RunId(row.get(2)),
            tenant: row.get(3),
            name: row.get(4),
            state: code::run_state(row.get(5))?,
            at_once: false,
            fail_fast: row.get(6),
            stops_late: false,
            timeout: row.get(7),
            created_at: row.get(20),
            started_at: row.get(8),
            completed_at: row.get(9),
            message: row.get(10),
            last_event: row.get(11),
            buckets: row.get(12),
            jobs: row.get(13),
            waiting: row.get(14),
            completed: row.get(15),
            failed: row.get(16),
            cancelled: row.get(17),
            skipped: row.get(18),
            failures: row.get(19),
            nodes: BTreeMap::new(),
            touched: BTreeSet::new(),
            stopped: BTreeSet::new(),
            changed: false,
            is_new: false,
            looks: 0,
        })
    }

    pub(super) fn stop(&self) -> Stop {
        match self.at_once {
            true => Stop::AtOnce,
            false => Stop::of(self.state == RunState::Cancelling, self.fail_fast, unsigned(self.failures)),
        }
    }

    /// Whether all its jobs are final.
    pub(super) fn is_over(&self) -> bool {
        self.completed + self.failed + self.cancelled + self.skipped >= self.jobs
    }
}

/// The columns of a [`Run`], of a table called `r`.
const RUN: &str = "r.seq, r.last_seq, r.id, r.tenant, r.name, r.state, r.fail_fast, r.timeout, r.started_at, \
     r.completed_at, r.message, r.last_event, r.buckets, r.jobs, r.waiting, r.completed, r.failed, r.cancelled, \
     r.skipped, r.failures, r.created_at";

/// The columns of a [`Node`] and its table. What is asked for follows.
const NODE: &str = "SELECT rj.run, rj.place, rj.seq, rj.job, coalesce(j.bucket, rj.bucket), rj.permit, rj.permit_limit,
            rj.workspace, rj.name, rj.gate, rj.continue_on_error, rj.successors, coalesce(w.before, rj.before), w.needs,
            w.asked
     FROM executr.run_job rj
     LEFT JOIN executr.waiting w ON w.seq = rj.seq
     LEFT JOIN executr.job j ON rj.workspace IS NOT NULL AND j.seq = rj.seq";

/// The runs that a transaction deals with.
#[derive(Default)]
pub(in crate::postgres) struct Runs {
    pub(super) runs: BTreeMap<i64, Run>,
    /// The run and place of each job that is known here, by its number.
    by_seq: HashMap<i64, (i64, i32)>,
    pub(super) told: Vec<Told>,
    pub(super) handing: Handing,
}

impl Runs {
    /// Begins a transaction and locks the runs to which the jobs of these leases belong, in the order in which everybody
    /// does. Returns besides what time it is.
    pub(in crate::postgres) async fn begin<'f>(
        core: &Core,
        session: &mut Session,
        fences: impl Iterator<Item = &'f Fence>,
    ) -> Result<(Timestamp, Self), Fault> {
        let jobs: Vec<Uuid> = fences.map(|fence| fence.job.0).collect();
        let sql = format!(
            "SELECT {RUN} FROM executr.run r WHERE r.seq = ANY(ARRAY(
                 SELECT (SELECT l.run FROM executr.lease l WHERE l.job = asked.job)
                 FROM unnest($1::uuid[]) AS asked (job)))
             ORDER BY r.seq FOR UPDATE"
        );
        let (now, rows) = session.begin_and_read(core.clock_offset(), sql, &[&jobs]).await?;
        let mut runs = Self::default();
        runs.learn(session, rows).await?;
        Ok((now, runs))
    }

    /// Locks these runs, in the order in which everybody does. Once in a transaction, and before any of their jobs.
    pub(in crate::postgres) async fn lock(session: &mut Session, seqs: &[i64]) -> Result<Self, Fault> {
        let mut runs = Self::default();
        if !seqs.is_empty() {
            let sql = format!("SELECT {RUN} FROM executr.run r WHERE r.seq = ANY($1) ORDER BY r.seq FOR UPDATE");
            let rows = session.rows(sql, &[&seqs]).await?;
            runs.learn(session, rows).await?;
        }
        Ok(runs)
    }

    async fn learn(&mut self, session: &mut Session, rows: Vec<Row>) -> Result<(), Fault> {
        for row in rows {
            let run = Run::read(&row)?;
            self.runs.insert(run.seq, run);
        }
        self.take_news(session).await
    }

    pub(in crate::postgres) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub(in crate::postgres) fn has(&self, seq: i64) -> bool {
        self.runs.contains_key(&seq)
    }

    pub(super) fn run(&mut self, seq: i64) -> Result<&mut Run, Fault> {
        // A lease is given once, so it can't have come into being since they were looked up.
        self.runs.get_mut(&seq).ok_or_else(|| Fault::Again("a run came between".to_owned()))
    }

    /// Reads what stands about these jobs in their runs' graphs, and about their successors.
    pub(in crate::postgres) async fn load_ends(&mut self, session: &mut Session, seqs: &[i64]) -> Result<(), Fault> {
        if seqs.is_empty() {
            return Ok(());
        }
        let sql = format!(
            "{NODE} JOIN (
                 WITH ended AS MATERIALIZED (SELECT run, place, successors FROM executr.run_job WHERE seq = ANY($1))
                 SELECT run, place FROM ended UNION SELECT run, unnest(successors) FROM ended) AS asked
             ON asked.run = rj.run AND asked.place = rj.place"
        );
        let rows = session.rows(sql, &[&seqs]).await?;
        self.learn_nodes(rows)
    }

    /// Reads these places of a run, as far as they aren't known.
    pub(super) async fn load(&mut self, session: &mut Session, seq: i64, places: &[i32]) -> Result<(), Fault> {
        let run = self.run(seq)?;
        let missing: Vec<i32> = places.iter().filter(|place| !run.nodes.contains_key(place)).copied().collect();
        if missing.is_empty() {
            return Ok(());
        }
        run.looks += 1;
        let rows = if run.looks == MOST_LOOKS {
            let sql = format!("{NODE} WHERE rj.run = $1 AND (w.seq IS NOT NULL OR rj.place = ANY($2))");
            session.rows(sql, &[&seq, &missing]).await?
        } else {
            session.rows(format!("{NODE} WHERE rj.run = $1 AND rj.place = ANY($2)"), &[&seq, &missing]).await?
        };
        self.learn_nodes(rows)
    }

    fn learn_nodes(&mut self, rows: Vec<Row>) -> Result<(), Fault> {
        for row in rows {
            let place = row.get(1);
            let run = self.run(row.get(0))?;
            // What is known may have changed since.
            if run.nodes.contains_key(&place) {
                continue;
            }
            let permit: Option<i64> = row.get(5);
            let limit = row.get::<_, Option<i64>>(6).unwrap_or(i64::MAX);
            let needs: Option<i32> = row.get(13);
            let node = Node {
                seq: row.get(2),
                job: JobId(row.get(3)),
                bucket: row.get(4),
                permit: permit.map(|id| (id, limit)),
                workspace: row.get(7),
                name: row.get(8),
                gate: code::gate(row.get(9))?,
                continue_on_error: row.get(10),
                successors: row.get(11),
                before: code::before(row.get(12)),
                wait: needs.map(|needs| Wait { needs, asked: row.get(14) }),
                stopped: None,
                is_done: false,
                end: None,
            };
            let seq = run.seq;
            self.put_node(seq, place, node)?;
        }
        Ok(())
    }

    /// The keys of all jobs known here.
    pub(in crate::postgres) fn permits(&self) -> impl Iterator<Item = i64> {
        self.runs.values().flat_map(|run| run.nodes.values()).filter_map(|node| node.permit.map(|(id, _)| id))
    }

    /// The run and the place there of a job that was read before.
    pub(super) fn place_of(&self, job: i64) -> Result<(i64, i32), Fault> {
        let found = self.by_seq.get(&job).copied();
        found.ok_or_else(|| damaged(format!("the job {job} is of a run and has no place there")))
    }

    /// A job that was read before.
    pub(super) fn node(&mut self, run: i64, place: i32) -> Result<&mut Node, Fault> {
        let found = self.run(run)?.nodes.get_mut(&place);
        found.ok_or_else(|| damaged(format!("the run {run} has no job at place {place}")))
    }

    /// Puts a run here that is about to be recorded, with all its jobs.
    pub(super) fn put(&mut self, run: Run) {
        self.by_seq.extend(run.nodes.iter().map(|(place, node)| (node.seq, (run.seq, *place))));
        self.runs.insert(run.seq, run);
    }

    /// The new run's row is written, and which of its jobs wait.
    pub(super) fn is_recorded(&mut self, seq: i64) -> Result<(), Fault> {
        let run = self.run(seq)?;
        run.changed = false;
        run.touched.clear();
        Ok(())
    }

    /// Puts a job where it stands in its run.
    pub(super) fn put_node(&mut self, run: i64, place: i32, node: Node) -> Result<(), Fault> {
        self.by_seq.insert(node.seq, (run, place));
        self.run(run)?.nodes.insert(place, node);
        Ok(())
    }
}
