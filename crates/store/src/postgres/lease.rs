//! Live leases: what stands in a row, and prolonging them.

use std::collections::HashMap;

use executr_api::{AttemptStatus, Fence, JobState, failpoint};
use executr_spec::{JobId, LeaseId, Timestamp, WorkerId};
use tokio_postgres::Row;
use uuid::Uuid;

use super::change::{AttemptEnd, Change, Counts, JobEnd, Place};
use super::coding::{small, status_code};
use super::core::Core;
use super::fault::Fault;
use super::gather::Answers;
use super::session::{Session, Step, step};
use crate::{LeaseRecord, MAX_LOST_LEASES, RenewAnswer, Renewal};

/// The columns of [`LeaseRow`], of a table called `l`.
macro_rules! lease_columns {
    () => {
        "l.job, l.seq, l.bucket, l.permit, l.attempt, l.failures, l.lost, l.lease, l.worker, l.ip, l.started_at, \
         l.expires_at, l.due_at, l.period, l.cancelling, l.reason, l.output_end, l.run"
    };
}
pub(super) use lease_columns;

/// A live lease with all that its end needs.
#[derive(Clone, Debug)]
pub(super) struct LeaseRow {
    pub(super) job: Uuid,
    pub(super) place: Place,
    pub(super) permit: Option<i64>,
    pub(super) counts: Counts,
    pub(super) lease: Uuid,
    pub(super) worker: String,
    pub(super) ip: Option<String>,
    pub(super) started_at: i64,
    pub(super) expires_at: i64,
    pub(super) due_at: Option<i64>,
    pub(super) period: i64,
    pub(super) cancelling: bool,
    pub(super) reason: Option<String>,
    pub(super) output_end: i64,
    /// The run of its job, if it is of one.
    pub(super) run: Option<i64>,
}

impl LeaseRow {
    /// Reads the columns of `lease_columns` from column `at` on.
    pub(super) fn read(row: &Row, at: usize) -> Self {
        Self {
            job: row.get(at),
            place: Place { seq: row.get(at + 1), bucket: row.get(at + 2) },
            permit: row.get(at + 3),
            counts: Counts { attempt: row.get(at + 4), failures: row.get(at + 5), lost: row.get(at + 6) },
            lease: row.get(at + 7),
            worker: row.get(at + 8),
            ip: row.get(at + 9),
            started_at: row.get(at + 10),
            expires_at: row.get(at + 11),
            due_at: row.get(at + 12),
            period: row.get(at + 13),
            cancelling: row.get(at + 14),
            reason: row.get(at + 15),
            output_end: row.get(at + 16),
            run: row.get(at + 17),
        }
    }

    pub(super) fn fence(&self) -> Fence {
        Fence { job: JobId(self.job), attempt: small(self.counts.attempt.into()), lease: LeaseId(self.lease) }
    }

    pub(super) fn worker(&self) -> WorkerId {
        WorkerId(self.worker.clone())
    }

    /// Whether its job stands in the ready set besides.
    pub(super) fn is_reclaimable(&self) -> bool {
        self.due_at.is_none()
    }

    pub(super) fn state(&self) -> JobState {
        if self.cancelling { JobState::Cancelling } else { JobState::Running }
    }

    /// Its attempt, ended so without a result.
    pub(super) fn end(&self, status: AttemptStatus) -> AttemptEnd {
        AttemptEnd {
            attempt: self.counts.attempt,
            lease: self.lease,
            worker: self.worker.clone(),
            ip: self.ip.clone(),
            started_at: self.started_at,
            status: status_code(status),
            exit_code: None,
            error: None,
            usage: None,
            steps: None,
            output_bytes: self.output_end,
        }
    }

    /// The end of its job by the end of its attempt. (`counts` as they are then.)
    pub(super) fn end_job(
        &self,
        core: &Core,
        change: &mut Change,
        state: JobState,
        counts: Counts,
        reason: Option<String>,
        last: AttemptEnd,
    ) {
        change.count(core, self.place.bucket, Some(self.state()), Some(state));
        change.ended(JobEnd { seq: self.place.seq, state, counts, reason, last: Some(last) });
    }
}

/// When there will be something to do about a lease that runs out at `expires_at`.
pub(super) fn due_at(expires_at: i64, period: i64, cancelling: bool, lost: i32) -> i64 {
    if cancelling || small(lost.into()) + 1 < MAX_LOST_LEASES { expires_at } else { expires_at.saturating_add(period) }
}

/// Ends the leases under these fences and returns what they were; each only once.
pub(super) async fn take_leases(
    session: &mut Session,
    fences: impl Iterator<Item = &Fence>,
) -> Result<HashMap<Fence, LeaseRow>, Fault> {
    let (mut jobs, mut attempts, mut leases) = (Vec::new(), Vec::new(), Vec::new());
    for fence in fences {
        jobs.push(fence.job.0);
        attempts.push(i32::try_from(fence.attempt).unwrap_or(i32::MAX));
        leases.push(fence.lease.0);
    }
    let rows = session
        .rows(
            concat!(
                "DELETE FROM executr.lease l
                 USING unnest($1::uuid[], $2::int[], $3::uuid[]) AS fence (job, attempt, lease)
                 WHERE l.job = fence.job AND l.attempt = fence.attempt AND l.lease = fence.lease RETURNING ",
                lease_columns!()
            ),
            &[&jobs, &attempts, &leases],
        )
        .await?;
    Ok(rows.iter().map(|row| LeaseRow::read(row, 0)).map(|lease| (lease.fence(), lease)).collect())
}

/// Prolongs leases.
pub(super) async fn renew(
    core: &Core,
    session: &mut Session,
    requests: &[Vec<Renewal>],
) -> Result<Answers<Vec<RenewAnswer>>, Fault> {
    let now = session.begin(core.clock_offset()).await?;
    // The last one counts when a lease is prolonged twice.
    let wanted: HashMap<Fence, i64> = requests
        .iter()
        .flatten()
        .map(|renewal| (renewal.fence, i64::try_from(renewal.lease.as_micros()).unwrap_or(i64::MAX)))
        .collect();
    let jobs: Vec<Uuid> = wanted.keys().map(|fence| fence.job.0).collect();
    let attempts: Vec<i32> = wanted.keys().map(|fence| i32::try_from(fence.attempt).unwrap_or(i32::MAX)).collect();
    let leases: Vec<Uuid> = wanted.keys().map(|fence| fence.lease.0).collect();
    let periods: Vec<i64> = wanted.values().copied().collect();
    let rows = session
        .rows(
            "WITH held AS MATERIALIZED (
                 SELECT l.job, l.due_at IS NULL AS reclaimable, fence.period FROM executr.lease l
                 JOIN unnest($1::uuid[], $2::int[], $3::uuid[], $4::bigint[]) AS fence (job, attempt, lease, period)
                   ON l.job = fence.job AND l.attempt = fence.attempt AND l.lease = fence.lease
                 FOR UPDATE OF l)
             UPDATE executr.lease l SET renewed_at = $5, period = held.period, expires_at = $5 + held.period,
                 due_at = $5 + held.period + CASE WHEN l.cancelling OR l.lost + 1 < $6 THEN 0 ELSE held.period END
             FROM held WHERE l.job = held.job
             RETURNING l.job, l.attempt, l.lease, l.cancelling, held.reclaimable, l.bucket, l.seq, l.expires_at",
            &[&jobs, &attempts, &leases, &periods, &now.0, &(MAX_LOST_LEASES as i32)],
        )
        .await?;
    let mut change = Change::default();
    let mut renewed = HashMap::new();
    for row in rows {
        let fence =
            Fence { job: JobId(row.get(0)), attempt: small(row.get::<_, i32>(1).into()), lease: LeaseId(row.get(2)) };
        if row.get(4) {
            change.unready(Place { bucket: row.get(5), seq: row.get(6) });
        }
        renewed.insert(fence, (row.get::<_, bool>(3), row.get::<_, i64>(7)));
    }
    change.write(core, session, now, Vec::new()).await?;
    session.commit().await?;
    failpoint::pass("renew.after-commit");
    let answer = |renewal: &Renewal| match renewed.get(&renewal.fence) {
        Some((cancelling, _)) => RenewAnswer::Renewed { expires_at: now.plus(renewal.lease), cancelling: *cancelling },
        None => RenewAnswer::LeaseLost,
    };
    Ok(requests.iter().map(|renewals| Ok(renewals.iter().map(answer).collect())).collect())
}

/// The live leases of a worker, or that of a job.
pub(super) enum Of<'a> {
    Worker(&'a WorkerId),
    Job(JobId),
}

/// Shows live leases, oldest jobs first.
pub(super) async fn list(core: &Core, session: &mut Session, of: Of<'_>) -> Result<Vec<LeaseRecord>, Fault> {
    const SHOWN: &str =
        concat!("SELECT ", lease_columns!(), ", j.spec FROM executr.lease l JOIN executr.job j ON j.seq = l.seq");
    let rows = match of {
        Of::Worker(worker) => session.rows(format!("{SHOWN} WHERE l.worker = $1 ORDER BY l.seq"), &[&worker.0]).await?,
        Of::Job(job) => session.rows(format!("{SHOWN} WHERE l.job = $1"), &[&job.0]).await?,
    };
    let mut leases = Vec::with_capacity(rows.len());
    for row in rows {
        let lease = LeaseRow::read(&row, 0);
        let bucket = core.registry.bucket(session, lease.place.bucket).await?;
        leases.push(LeaseRecord {
            fence: lease.fence(),
            worker: lease.worker(),
            started_at: Timestamp(lease.started_at),
            expires_at: Timestamp(lease.expires_at),
            cancelling: lease.cancelling,
            tenant: bucket.tenant.clone(),
            spec: super::job::spec(row.get(18))?,
        });
    }
    Ok(leases)
}

/// Leases to record, column by column.
pub(super) struct LeaseColumns<'a> {
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
    run: Vec<Option<i64>>,
}

impl<'a> LeaseColumns<'a> {
    pub(super) fn new(leases: &'a [LeaseRow]) -> Self {
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
            run: leases.iter().map(|lease| lease.run).collect(),
        }
    }

    /// Records them as given at `now`.
    pub(super) fn step<'b>(&'b self, now: &'b i64) -> Step<'b> {
        step!(
            "INSERT INTO executr.lease (started_at, renewed_at, job, seq, bucket, permit, attempt, failures, lost, lease,
                                        worker, ip, expires_at, due_at, period, run)
             SELECT $14, $14, * FROM unnest($1::uuid[], $2::bigint[], $3::int[], $4::bigint[], $5::int[], $6::int[],
                 $7::int[], $8::uuid[], $9::text[], $10::text[], $11::bigint[], $12::bigint[], $13::bigint[],
                 $15::bigint[])",
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
            now,
            &self.run
        )
    }
}
