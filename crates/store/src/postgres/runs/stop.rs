//! Runs that stop: after a failure, or because they were asked to.
//!
//! A job goes from `scheduled` to `blocked` to `ready` to `lease` without its run being locked, but back only under that
//! lock. So what stops is taken from these tables in that order: what goes on meanwhile is met at its next station.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use executr_api::{JobState, RunCancel, RunEventKind, RunState};
use executr_spec::RunId;
use tokio_postgres::Row;
use uuid::Uuid;

use super::code::gate_code;
use super::follow::Followed;
use super::locked::{Runs, Stopped};
use super::work::Work;
use crate::lifecycle::graph::{Stop, is_stopped, outlives_cancel, took_too_long};
use crate::postgres::change::{Change, Counts};
use crate::postgres::coding::{text, unsigned};
use crate::postgres::core::Core;
use crate::postgres::fault::Fault;
use crate::postgres::lease::{LeaseRow, lease_columns};
use crate::postgres::permits::Permits;
use crate::postgres::session::Session;
use crate::{Gate, RunProgress};

/// So often a job that moves from one bucket to another is looked for.
const MOST_LOOKS: u32 = 5;

/// Asks a run to stop. `None`: there is no such run.
pub(super) async fn cancel_run(
    core: &Core,
    session: &mut Session,
    wish: &(RunId, RunCancel, String),
) -> Result<Option<(RunState, RunProgress)>, Fault> {
    let (id, how, reason) = wish;
    let sql = "SELECT seq FROM executr.run WHERE id = $1 AND NOT deleted";
    let Some(row) = session.row(sql, &[&id.0]).await? else { return Ok(None) };
    let seq: i64 = row.get(0);
    let now = session.begin(core.clock_offset()).await?;
    let mut runs = Runs::lock(session, &[seq]).await?;
    if !runs.has(seq) {
        session.roll_back().await;
        return Ok(None);
    }
    let (mut change, mut permits) = (Change::default(), Permits::default());
    let mut work = Work { core, session, change: &mut change, permits: &mut permits, now };
    let mut followed = Followed::default();
    let state = runs.run(seq)?.state;
    if state == RunState::Running || (state == RunState::Cancelling && *how == RunCancel::AtOnce) {
        runs.ask_to_stop(&mut work, seq, *how, &text(reason), &mut followed).await?;
    }
    let state = runs.run(seq)?.state;
    runs.write(&mut work).await?;
    permits.write(session).await?;
    session.commit().await?;
    Ok(Some((state, followed.alone(core))))
}

impl Runs {
    /// Asks a run to stop that isn't final.
    pub(in crate::postgres) async fn ask_to_stop(
        &mut self,
        work: &mut Work<'_>,
        seq: i64,
        how: RunCancel,
        reason: &str,
        followed: &mut Followed,
    ) -> Result<(), Fault> {
        let run = self.run(seq)?;
        run.at_once |= how == RunCancel::AtOnce;
        if run.state == RunState::Running {
            run.state = RunState::Cancelling;
            run.message = Some(reason.to_owned());
            let asked = RunEventKind::RunCancelling { reason: reason.to_owned() };
            self.tell(seq, &asked, work.now, &mut followed.progress)?;
        }
        let reason = self.run(seq)?.message.clone().unwrap_or_default();
        self.stop(work, seq).await?;
        self.ask_running(work, seq, how, &reason, followed).await?;
        self.settle(work, seq, BTreeSet::new(), followed).await?;
        followed.give_back(self, work).await
    }

    /// Asks a run to stop because its time is over, if it still runs.
    pub(in crate::postgres) async fn time_is_over(
        &mut self,
        work: &mut Work<'_>,
        seq: i64,
        followed: &mut Followed,
    ) -> Result<(), Fault> {
        let Some(run) = self.runs.get(&seq).filter(|run| run.state == RunState::Running) else { return Ok(()) };
        let timeout = Duration::from_micros(unsigned(run.timeout.unwrap_or(0)));
        self.ask_to_stop(work, seq, RunCancel::InOrder, &took_too_long(timeout), followed).await
    }

    /// Takes those jobs that stop with their run from where they stand; their ends are still to be told.
    pub(super) async fn stop(&mut self, work: &mut Work<'_>, seq: i64) -> Result<(), Fault> {
        // What is only gathered so far is to be seen by the statements below.
        self.write(work).await?;
        for _ in 0..MOST_LOOKS {
            let places = self.standing(work.session, seq).await?;
            if places.is_empty() {
                return Ok(());
            }
            let mut keys = Vec::new();
            for place in &places {
                keys.extend(self.node(seq, *place)?.permit.map(|(id, _)| id));
            }
            work.permits.lock(work.session, keys).await?;
            let missed = self.take_out(work, seq, &places).await?;
            if !missed {
                return Ok(());
            }
        }
        Err(Fault::Again("a job that stops with its run moves all the time".to_owned()))
    }

    /// Where jobs stand that stop with the run and that nobody has. Those that are asked about, and at once those that wait for
    /// their needs, are noted as stopped.
    async fn standing(&mut self, session: &mut Session, seq: i64) -> Result<Vec<i32>, Fault> {
        let run = self.run(seq)?;
        let stop = run.stop();
        let (last, buckets) = (run.last_seq, run.buckets.clone());
        let gates: Vec<i16> =
            Gate::ALL.into_iter().filter(|gate| is_stopped(*gate, JobState::Ready, 0, stop)).map(gate_code).collect();
        let rows = session
            .rows(
                "SELECT rj.place, its.attempt FROM (
                     SELECT seq, attempt FROM executr.scheduled WHERE seq BETWEEN $1 AND $2
                     UNION ALL SELECT seq, attempt FROM executr.blocked WHERE seq BETWEEN $1 AND $2
                     UNION ALL SELECT r.seq, r.attempt FROM unnest($3::int[]) AS its (bucket)
                     JOIN executr.ready r ON r.bucket = its.bucket AND r.seq BETWEEN $1 AND $2 AND NOT r.reclaim
                     UNION ALL SELECT r.seq, r.attempt FROM executr.workspace w
                     JOIN executr.job j ON j.workspace = w.id
                     JOIN executr.ready r ON r.bucket = j.bucket AND r.seq = j.seq AND NOT r.reclaim WHERE w.run = $1
                     UNION ALL SELECT seq, 0 FROM executr.waiting WHERE (asked OR $5) AND seq BETWEEN $1 AND $2
                 ) AS its CROSS JOIN LATERAL (
                     SELECT rj.place FROM executr.run_job rj
                     WHERE rj.seq = its.seq AND rj.run = $1 AND rj.gate = ANY($4) OFFSET 0) AS rj",
                &[&seq, &last, &buckets, &gates, &(stop == Stop::AtOnce)],
            )
            .await?;
        let found: Vec<(i32, u32)> = rows.iter().map(|row| (row.get(0), row.get::<_, i32>(1).unsigned_abs())).collect();
        let places: Vec<i32> = found.iter().map(|(place, _)| *place).collect();
        self.load_again(session, seq, &places).await?;
        let mut standing = Vec::new();
        for (place, attempt) in found {
            let node = self.node(seq, place)?;
            if !is_stopped(node.gate, JobState::Ready, attempt, stop) {
                continue;
            }
            if node.wait.is_some() {
                self.run(seq)?.stopped.insert(place);
            } else {
                standing.push(place);
            }
        }
        Ok(standing)
    }

    /// Takes jobs from where they stand. Returns whether one wasn't where it was looked for, and nobody has it.
    async fn take_out(&mut self, work: &mut Work<'_>, seq: i64, places: &[i32]) -> Result<bool, Fault> {
        let mut open: BTreeMap<i64, (i32, i32)> = BTreeMap::new();
        let mut with_workspace = BTreeSet::new();
        for place in places {
            let node = self.node(seq, *place)?;
            open.insert(node.seq, (*place, node.bucket));
            if node.workspace.is_some() {
                with_workspace.insert(node.seq);
            }
        }
        let seqs: Vec<i64> = open.keys().copied().collect();
        let buckets: Vec<i32> = open.values().map(|(_, bucket)| *bucket).collect();
        let mut taken: Vec<(i64, JobState, Counts)> = Vec::new();
        let mut note = |rows: Vec<Row>, from: JobState| {
            taken.extend(rows.iter().map(|row| {
                let counts = Counts { attempt: row.get(1), failures: row.get(2), lost: row.get(3) };
                (row.get(0), from, counts)
            }));
        };
        let sql = "DELETE FROM executr.scheduled WHERE seq = ANY($1) RETURNING seq, attempt, failures, lost";
        note(work.session.rows(sql, &[&seqs]).await?, JobState::Scheduled);
        let sql = "DELETE FROM executr.blocked WHERE seq = ANY($1) RETURNING seq, attempt, failures, lost";
        note(work.session.rows(sql, &[&seqs]).await?, JobState::Blocked);
        let sql = "DELETE FROM executr.ready r USING unnest($1::int[], $2::bigint[]) AS gone (bucket, seq)
             WHERE r.bucket = gone.bucket AND r.seq = gone.seq AND NOT r.reclaim
             RETURNING r.seq, r.attempt, r.failures, r.lost";
        note(work.session.rows(sql, &[&buckets, &seqs]).await?, JobState::Ready);
        work.permits.out_of_line(taken.iter().map(|(job, ..)| *job));
        let repeated: Vec<i64> =
            taken.iter().filter(|(_, _, counts)| counts.attempt > 0).map(|(job, ..)| *job).collect();
        let codes = exit_codes(work.session, &repeated).await?;
        for (job, from, counts) in taken {
            let Some((place, _)) = open.remove(&job) else { continue };
            let exit_code = codes.get(&job).copied().flatten();
            self.node(seq, place)?.stopped = Some(Stopped { from, counts, exit_code });
            self.run(seq)?.stopped.insert(place);
        }
        // A worker got the others just before, unless they moved to another bucket.
        Ok(open.keys().any(|job| with_workspace.contains(job)))
    }

    /// Tells workers to stop those jobs of theirs that stop with the run.
    async fn ask_running(
        &mut self,
        work: &mut Work<'_>,
        seq: i64,
        how: RunCancel,
        reason: &str,
        followed: &mut Followed,
    ) -> Result<(), Fault> {
        let at_once = how == RunCancel::AtOnce;
        let is_asked = |gate: &Gate| at_once || !outlives_cancel(*gate);
        let gates: Vec<i16> = Gate::ALL.into_iter().filter(is_asked).map(gate_code).collect();
        let sql = concat!(
            "SELECT rj.place, ",
            lease_columns!(),
            " FROM executr.lease l JOIN executr.run_job rj ON rj.seq = l.seq
             WHERE l.run = $1 AND ($3 OR NOT l.cancelling) AND rj.gate = ANY($2) ORDER BY l.job FOR UPDATE OF l"
        );
        let rows = work.session.rows(sql, &[&seq, &gates, &at_once]).await?;
        let mut asked: Vec<(i32, LeaseRow)> = rows.iter().map(|row| (row.get(0), LeaseRow::read(row, 1))).collect();
        asked.sort_unstable_by_key(|(place, _)| *place);
        if at_once {
            followed.progress.at_once.extend(asked.iter().map(|(_, lease)| (lease.fence(), lease.worker())));
            // The first reason stays.
            asked.retain(|(_, lease)| !lease.cancelling);
        }
        if asked.is_empty() {
            return Ok(());
        }
        for (_, lease) in &asked {
            work.core.registry.bucket(work.session, lease.place.bucket).await?;
            if lease.is_reclaimable() {
                work.change.unready(lease.place);
            }
            work.change.count(work.core, lease.place.bucket, Some(JobState::Running), Some(JobState::Cancelling));
            if !at_once {
                followed.progress.cancelling.push((lease.fence(), lease.worker()));
            }
        }
        let jobs: Vec<Uuid> = asked.iter().map(|(_, lease)| lease.job).collect();
        work.session
            .run(
                "UPDATE executr.lease SET cancelling = true, due_at = expires_at, reason = $2 WHERE job = ANY($1)",
                &[&jobs, &reason],
            )
            .await?;
        Ok(())
    }

    /// Reads these places of a run; of those that are known, where they wait when they are ready.
    async fn load_again(&mut self, session: &mut Session, seq: i64, places: &[i32]) -> Result<(), Fault> {
        self.load(session, seq, places).await?;
        let run = self.run(seq)?;
        let movable = |place: &&i32| run.nodes.get(place).is_some_and(|node| node.workspace.is_some());
        let jobs: Vec<i64> =
            places.iter().filter(movable).filter_map(|place| run.nodes.get(place)).map(|node| node.seq).collect();
        if jobs.is_empty() {
            return Ok(());
        }
        for row in session.rows("SELECT seq, bucket FROM executr.job WHERE seq = ANY($1)", &[&jobs]).await? {
            let (_, place) = self.place_of(row.get(0))?;
            self.node(seq, place)?.bucket = row.get(1);
        }
        Ok(())
    }
}

/// The exit codes of the last attempts that brought results.
async fn exit_codes(session: &mut Session, jobs: &[i64]) -> Result<BTreeMap<i64, Option<i32>>, Fault> {
    if jobs.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = session
        .rows(
            "SELECT asked.seq, told.exit_code FROM unnest($1::bigint[]) AS asked (seq)
             CROSS JOIN LATERAL (SELECT a.exit_code FROM executr.all_attempts a
                                 WHERE a.seq = asked.seq AND a.status BETWEEN 1 AND 3
                                 ORDER BY a.attempt DESC LIMIT 1) AS told",
            &[&jobs],
        )
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
