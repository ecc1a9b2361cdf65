//! What a command writes, gathered row by row and sent table by table.

use std::collections::{BTreeMap, HashSet};

use executr_api::JobState;
use executr_spec::Timestamp;
use uuid::Uuid;

use super::coding::state_code;
use super::core::Core;
use super::fault::Fault;
use super::session::{Session, Step, step};
use crate::Readied;

/// How often a job was handed out, failed, and was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) attempt: i32,
    pub(super) failures: i32,
    pub(super) lost: i32,
}

/// A job by its number and where it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) seq: i64,
    pub(super) bucket: i32,
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub(super) struct AttemptEnd {
    pub(super) attempt: i32,
    pub(super) lease: Uuid,
    pub(super) worker: String,
    pub(super) ip: Option<String>,
    pub(super) started_at: i64,
    pub(super) status: i16,
    pub(super) exit_code: Option<i32>,
    pub(super) error: Option<String>,
    pub(super) usage: Option<String>,
    pub(super) steps: Option<String>,
    pub(super) output_bytes: i64,
}

/// How a job ended.
#[derive(Clone, Debug)]
pub(super) struct JobEnd {
    pub(super) seq: i64,
    pub(super) state: JobState,
    pub(super) counts: Counts,
    pub(super) reason: Option<String>,
    pub(super) last: Option<AttemptEnd>,
}

#[derive(Default)]
struct Live {
    bucket: Vec<i32>,
    seq: Vec<i64>,
    attempt: Vec<i32>,
    failures: Vec<i32>,
    lost: Vec<i32>,
}

impl Live {
    fn push(&mut self, place: Place, counts: Counts) {
        self.bucket.push(place.bucket);
        self.seq.push(place.seq);
        self.attempt.push(counts.attempt);
        self.failures.push(counts.failures);
        self.lost.push(counts.lost);
    }
}

/// Rows to write, in one transaction.
#[derive(Default)]
pub(super) struct Change {
    ready: Live,
    ready_reclaim: Vec<bool>,
    scheduled: Live,
    scheduled_due: Vec<i64>,
    blocked: Live,
    blocked_permit: Vec<i64>,
    blocked_priority: Vec<i16>,
    blocked_limit: Vec<i64>,
    blocked_workspace: Vec<Option<i64>>,
    moved_seq: Vec<i64>,
    moved_bucket: Vec<i32>,
    unready_bucket: Vec<i32>,
    unready_seq: Vec<i64>,
    unblocked: Vec<i64>,
    ended: Vec<JobEnd>,
    attempts: Vec<(i64, AttemptEnd)>,
    entered: Vec<i32>,
    tally: BTreeMap<(i32, i16), i64>,
}

impl Change {
    /// The job becomes ready.
    pub(super) fn ready(&mut self, place: Place, counts: Counts) {
        self.ready.push(place, counts);
        self.ready_reclaim.push(false);
    }

    /// The running job stands in the ready set besides.
    pub(super) fn reclaimable(&mut self, place: Place, counts: Counts) {
        self.ready.push(place, counts);
        self.ready_reclaim.push(true);
    }

    /// The job waits for its time.
    pub(super) fn scheduled(&mut self, place: Place, counts: Counts, due: Timestamp) {
        self.scheduled.push(place, counts);
        self.scheduled_due.push(due.0);
    }

    /// The job waits for a permit.
    pub(super) fn blocked(&mut self, place: Place, counts: Counts, permit: i64, limit: i64, priority: i16) {
        self.blocked_in_run(place, counts, (permit, limit, priority), None);
    }

    /// Likewise, in the line (permit, limit, priority), for a job that uses a workspace perhaps.
    pub(super) fn blocked_in_run(
        &mut self,
        place: Place,
        counts: Counts,
        (permit, limit, priority): (i64, i64, i16),
        workspace: Option<i64>,
    ) {
        self.blocked.push(place, counts);
        self.blocked_permit.push(permit);
        self.blocked_priority.push(priority);
        self.blocked_limit.push(limit);
        self.blocked_workspace.push(workspace);
    }

    /// The job waits in another bucket from now on when it is ready.
    pub(super) fn moved(&mut self, to: Place) {
        self.moved_seq.push(to.seq);
        self.moved_bucket.push(to.bucket);
    }

    /// The job leaves the ready set.
    pub(super) fn unready(&mut self, place: Place) {
        self.unready_bucket.push(place.bucket);
        self.unready_seq.push(place.seq);
    }

    /// The job waits for no permit any more.
    pub(super) fn unblocked(&mut self, seq: i64) {
        self.unblocked.push(seq);
    }

    /// The job is final.
    pub(super) fn ended(&mut self, end: JobEnd) {
        self.ended.push(end);
    }

    /// The attempt ended, the job did not.
    pub(super) fn attempt(&mut self, seq: i64, end: AttemptEnd) {
        self.attempts.push((seq, end));
    }

    /// A job of this bucket went from one state to another. A new one keeps its bucket from being retired until that is
    /// committed.
    pub(super) fn count(&mut self, core: &Core, bucket: i32, from: Option<JobState>, to: Option<JobState>) {
        if from == to {
            return;
        }
        if from.is_none() {
            self.entered.push(bucket);
        }
        let group = core.registry.tally(bucket);
        for (state, by) in [(from, -1), (to, 1)] {
            if let Some(state) = state {
                *self.tally.entry((group, state_code(state))).or_default() += by;
            }
        }
    }

    /// Writes all of it. The statements of `more` go along.
    pub(super) async fn write(
        &self,
        core: &Core,
        session: &mut Session,
        now: Timestamp,
        more: Vec<Step<'_>>,
    ) -> Result<(), Fault> {
        let tally: Vec<_> = self.tally.iter().filter(|(_, jobs)| **jobs != 0).collect();
        let tally_bucket: Vec<i32> = tally.iter().map(|((bucket, _), _)| *bucket).collect();
        let tally_state: Vec<i16> = tally.iter().map(|((_, state), _)| *state).collect();
        let tally_jobs: Vec<i64> = tally.iter().map(|(_, jobs)| **jobs).collect();
        let ended = EndedColumns::new(&self.ended);
        let attempts = AttemptColumns::new(self.attempts.iter().map(|(_, end)| Some(end)));
        let attempt_seq: Vec<i64> = self.attempts.iter().map(|(seq, _)| *seq).collect();

        let mut steps = more;
        if !self.unready_seq.is_empty() {
            steps.push(step!(
                "DELETE FROM executr.ready r USING unnest($1::int[], $2::bigint[]) AS gone (bucket, seq)
                 WHERE r.bucket = gone.bucket AND r.seq = gone.seq",
                &self.unready_bucket,
                &self.unready_seq
            ));
        }
        if !self.unblocked.is_empty() {
            steps.push(step!("DELETE FROM executr.blocked WHERE seq = ANY($1)", &self.unblocked));
        }
        if !self.ready.seq.is_empty() {
            steps.push(step!(
                "INSERT INTO executr.ready (bucket, seq, attempt, failures, lost, reclaim)
                 SELECT * FROM unnest($1::int[], $2::bigint[], $3::int[], $4::int[], $5::int[], $6::bool[])",
                &self.ready.bucket,
                &self.ready.seq,
                &self.ready.attempt,
                &self.ready.failures,
                &self.ready.lost,
                &self.ready_reclaim
            ));
        }
        if !self.scheduled.seq.is_empty() {
            steps.push(step!(
                "INSERT INTO executr.scheduled (seq, due_at, attempt, failures, lost)
                 SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::int[], $4::int[], $5::int[])",
                &self.scheduled.seq,
                &self.scheduled_due,
                &self.scheduled.attempt,
                &self.scheduled.failures,
                &self.scheduled.lost
            ));
        }
        if !self.blocked.seq.is_empty() {
            steps.push(step!(
                "INSERT INTO executr.blocked (seq, permit, priority, permit_limit, bucket, attempt, failures, lost, workspace)
                 SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::bigint[], $5::int[],
                                      $6::int[], $7::int[], $8::int[], $9::bigint[])",
                &self.blocked.seq,
                &self.blocked_permit,
                &self.blocked_priority,
                &self.blocked_limit,
                &self.blocked.bucket,
                &self.blocked.attempt,
                &self.blocked.failures,
                &self.blocked.lost,
                &self.blocked_workspace
            ));
        }
        if !self.moved_seq.is_empty() {
            steps.push(step!(
                "UPDATE executr.job j SET bucket = new.bucket
                 FROM unnest($1::bigint[], $2::int[]) AS new (seq, bucket) WHERE j.seq = new.seq",
                &self.moved_seq,
                &self.moved_bucket
            ));
        }
        if !self.ended.is_empty() {
            steps.push(ended.step(&now.0));
        }
        if !self.attempts.is_empty() {
            steps.push(attempts.step(&attempt_seq, &now.0));
        }
        if !tally.is_empty() {
            core.upkeep.tallied(tally.len());
            steps.push(step!(
                "INSERT INTO executr.tally (bucket, state, jobs)
                 SELECT * FROM unnest($1::int[], $2::smallint[], $3::bigint[])",
                &tally_bucket,
                &tally_state,
                &tally_jobs
            ));
        }
        session.run_all(steps).await?;
        self.activate(core, session).await
    }

    /// Makes sure that claims look into the buckets that have ready jobs now, and that those with new jobs are in use.
    async fn activate(&self, core: &Core, session: &mut Session) -> Result<(), Fault> {
        let mut buckets: Vec<i32> = self.ready.bucket.iter().chain(&self.entered).copied().collect();
        if buckets.is_empty() {
            return Ok(());
        }
        buckets.sort_unstable();
        buckets.dedup();
        let rows = session
            .rows(
                "SELECT id, active FROM executr.bucket WHERE id = ANY($1) AND NOT retired ORDER BY id FOR KEY SHARE",
                &[&buckets],
            )
            .await?;
        if rows.len() != buckets.len() {
            let there: HashSet<i32> = rows.iter().map(|row| row.get(0)).collect();
            buckets.retain(|id| !there.contains(id));
            core.registry.forget(&buckets);
            return Err(Fault::Again(format!("the buckets {buckets:?} were retired in this moment")));
        }
        let ready: HashSet<i32> = self.ready.bucket.iter().copied().collect();
        let asleep = rows.iter().filter(|row| !row.get::<_, bool>(1)).map(|row| row.get(0));
        let asleep: Vec<i32> = asleep.filter(|id| ready.contains(id)).collect();
        if !asleep.is_empty() {
            session
                .run(
                    "WITH asleep AS (
                         SELECT id FROM executr.bucket WHERE id = ANY($1) AND NOT active ORDER BY id FOR NO KEY UPDATE)
                     UPDATE executr.bucket b SET active = true, turn = (
                         SELECT max(turn) FROM executr.bucket lane
                         WHERE lane.queue = b.queue AND lane.priority = b.priority AND lane.tenant = b.tenant
                               AND NOT lane.retired)
                     FROM asleep WHERE b.id = asleep.id",
                    &[&asleep],
                )
                .await?;
        }
        Ok(())
    }
}

struct AttemptColumns<'a> {
    attempt: Vec<Option<i32>>,
    lease: Vec<Option<Uuid>>,
    worker: Vec<Option<&'a str>>,
    ip: Vec<Option<&'a str>>,
    started_at: Vec<Option<i64>>,
    status: Vec<Option<i16>>,
    exit_code: Vec<Option<i32>>,
    error: Vec<Option<&'a str>>,
    usage: Vec<Option<&'a str>>,
    steps: Vec<Option<&'a str>>,
    output_bytes: Vec<Option<i64>>,
}

impl<'a> AttemptColumns<'a> {
    fn new(ends: impl Iterator<Item = Option<&'a AttemptEnd>>) -> Self {
        let ends: Vec<_> = ends.collect();
        fn column<'a, T>(
            ends: &[Option<&'a AttemptEnd>],
            value: impl Fn(&'a AttemptEnd) -> Option<T>,
        ) -> Vec<Option<T>> {
            ends.iter().map(|end| end.and_then(&value)).collect()
        }
        Self {
            attempt: column(&ends, |end| Some(end.attempt)),
            lease: column(&ends, |end| Some(end.lease)),
            worker: column(&ends, |end| Some(end.worker.as_str())),
            ip: column(&ends, |end| end.ip.as_deref()),
            started_at: column(&ends, |end| Some(end.started_at)),
            status: column(&ends, |end| Some(end.status)),
            exit_code: column(&ends, |end| end.exit_code),
            error: column(&ends, |end| end.error.as_deref()),
            usage: column(&ends, |end| end.usage.as_deref()),
            steps: column(&ends, |end| end.steps.as_deref()),
            output_bytes: column(&ends, |end| Some(end.output_bytes)),
        }
    }

    fn step<'b>(&'b self, seq: &'b Vec<i64>, now: &'b i64) -> Step<'b> {
        step!(
            "INSERT INTO executr.attempt (seq, ended_at, attempt, lease, worker, ip, started_at, status, exit_code,
                                          error, usage, steps, output_bytes)
             SELECT seq, $13, attempt, lease, worker, ip, started_at, status, exit_code, error, usage, steps, output_bytes
             FROM unnest($1::bigint[], $2::int[], $3::uuid[], $4::text[], $5::text[], $6::bigint[], $7::smallint[],
                         $8::int[], $9::text[], $10::text[], $11::text[], $12::bigint[])
                  AS new (seq, attempt, lease, worker, ip, started_at, status, exit_code, error, usage, steps, output_bytes)",
            seq,
            &self.attempt,
            &self.lease,
            &self.worker,
            &self.ip,
            &self.started_at,
            &self.status,
            &self.exit_code,
            &self.error,
            &self.usage,
            &self.steps,
            &self.output_bytes,
            now
        )
    }
}

struct EndedColumns<'a> {
    seq: Vec<i64>,
    state: Vec<i16>,
    counts_attempt: Vec<i32>,
    failures: Vec<i32>,
    lost: Vec<i32>,
    reason: Vec<Option<&'a str>>,
    last: AttemptColumns<'a>,
}

impl<'a> EndedColumns<'a> {
    fn new(ends: &'a [JobEnd]) -> Self {
        Self {
            seq: ends.iter().map(|end| end.seq).collect(),
            state: ends.iter().map(|end| state_code(end.state)).collect(),
            counts_attempt: ends.iter().map(|end| end.counts.attempt).collect(),
            failures: ends.iter().map(|end| end.counts.failures).collect(),
            lost: ends.iter().map(|end| end.counts.lost).collect(),
            reason: ends.iter().map(|end| end.reason.as_deref()).collect(),
            last: AttemptColumns::new(ends.iter().map(|end| end.last.as_ref())),
        }
    }

    fn step<'b>(&'b self, now: &'b i64) -> Step<'b> {
        step!(
            "INSERT INTO executr.ended (seq, completed_at, state, attempt, failures, lost, reason, lease, worker, ip,
                                        started_at, status, exit_code, error, usage, steps, output_bytes)
             SELECT seq, $17, state, attempt, failures, lost, reason, lease, worker, ip, started_at, status, exit_code,
                    error, usage, steps, output_bytes
             FROM unnest($1::bigint[], $2::smallint[], $3::int[], $4::int[], $5::int[], $6::text[], $7::uuid[],
                         $8::text[], $9::text[], $10::bigint[], $11::smallint[], $12::int[], $13::text[], $14::text[],
                         $15::text[], $16::bigint[])
                  AS new (seq, state, attempt, failures, lost, reason, lease, worker, ip, started_at, status, exit_code,
                          error, usage, steps, output_bytes)",
            &self.seq,
            &self.state,
            &self.counts_attempt,
            &self.failures,
            &self.lost,
            &self.reason,
            &self.last.lease,
            &self.last.worker,
            &self.last.ip,
            &self.last.started_at,
            &self.last.status,
            &self.last.exit_code,
            &self.last.error,
            &self.last.usage,
            &self.last.steps,
            &self.last.output_bytes,
            now
        )
    }
}

/// Tells what became ready, class by class.
pub(super) fn readied(core: &Core, buckets: impl IntoIterator<Item = i32>) -> Vec<Readied> {
    let mut found: BTreeMap<_, u32> = BTreeMap::new();
    for bucket in buckets {
        // Nobody here waits for a class that only a newer program understands.
        if let Some(bucket) = core.registry.lookup(bucket)
            && let Some(class) = &bucket.class
        {
            *found.entry((bucket.queue.clone(), class.clone())).or_default() += 1;
        }
    }
    found.into_iter().map(|((queue, class), jobs)| Readied { queue, class, jobs }).collect()
}
