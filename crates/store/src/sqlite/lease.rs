//! Live leases: in memory for every decision, in the table `lease` for the next start.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use executr_api::{AttemptStatus, Fence, JobState};
use executr_spec::{Backoff, JobId, Timestamp, WorkerId};
use rusqlite::{Connection, params};

use super::error::{damaged, from_sqlite};
use super::index::BucketId;
use super::row::{attempt_key, backoff, get, integer, job_id, lease_id, micros, span, status_code, to_json};
use super::writer::Writer;
use crate::{MAX_LOST_LEASES, RenewAnswer, Renewal, StoreError};

/// A live lease and what its end needs to know of the job.
#[derive(Clone, Debug)]
pub(super) struct Live {
    pub(super) seq: i64,
    pub(super) fence: Fence,
    pub(super) worker: Arc<str>,
    pub(super) ip: Option<Arc<str>>,
    pub(super) started_at: Timestamp,
    pub(super) expires_at: Timestamp,
    pub(super) period: Duration,
    pub(super) cancelling: bool,
    pub(super) reclaimable: bool,
    pub(super) bucket: BucketId,
    pub(super) failures: u32,
    pub(super) lost_leases: u32,
    pub(super) max_retries: u32,
    pub(super) backoff: Backoff,
    /// Whether the job has a concurrency key.
    pub(super) keyed: bool,
}

impl Live {
    pub(super) fn worker_id(&self) -> WorkerId {
        WorkerId(self.worker.to_string())
    }

    pub(super) fn state(&self) -> JobState {
        if self.cancelling { JobState::Cancelling } else { JobState::Running }
    }

    /// Whether one more lost lease fails the job.
    pub(super) fn is_last(&self) -> bool {
        self.lost_leases + 1 >= MAX_LOST_LEASES
    }

    /// When time alone does something to it.
    fn deadline(&self) -> Option<Timestamp> {
        match self {
            Self { cancelling: true, .. } => Some(self.expires_at),
            Self { reclaimable: true, .. } => None,
            _ if self.is_last() => Some(self.expires_at.plus(self.period)),
            _ => Some(self.expires_at),
        }
    }
}

/// All live leases.
#[derive(Debug, Default)]
pub(super) struct Leases {
    by_job: HashMap<JobId, Live>,
    by_deadline: BTreeSet<(Timestamp, i64, JobId)>,
    by_worker: HashMap<Arc<str>, BTreeSet<(i64, JobId)>>,
}

impl Leases {
    pub(super) fn load(connection: &Connection) -> Result<Self, StoreError> {
        let mut leases = Self::default();
        let mut statement = connection
            .prepare(
                "SELECT l.seq, j.id, l.attempt, l.lease, l.worker, l.ip, l.started_at, l.expires_at, l.period, l.cancelling,
                        l.reclaimable, j.bucket, j.failures, j.lost_leases, j.max_retries, s.backoff_kind, s.backoff_min,
                        s.backoff_max, j.concurrency_key IS NOT NULL
                 FROM lease l JOIN job j USING (seq) JOIN spec s USING (seq)",
            )
            .map_err(from_sqlite)?;
        let mut rows = statement.query([]).map_err(from_sqlite)?;
        while let Some(row) = rows.next().map_err(from_sqlite)? {
            let fence = Fence { job: job_id(get(row, 1)?), attempt: get(row, 2)?, lease: lease_id(get(row, 3)?) };
            leases.insert(Live {
                seq: get(row, 0)?,
                fence,
                worker: get::<String>(row, 4)?.into(),
                ip: get::<Option<String>>(row, 5)?.map(Into::into),
                started_at: Timestamp(get(row, 6)?),
                expires_at: Timestamp(get(row, 7)?),
                period: span(get(row, 8)?),
                cancelling: get(row, 9)?,
                reclaimable: get(row, 10)?,
                bucket: BucketId(get(row, 11)?),
                failures: get(row, 12)?,
                lost_leases: get(row, 13)?,
                max_retries: get(row, 14)?,
                backoff: backoff(get(row, 15)?, get(row, 16)?, get(row, 17)?)?,
                keyed: get(row, 18)?,
            });
        }
        Ok(leases)
    }

    pub(super) fn fences(&self) -> impl Iterator<Item = Fence> {
        self.by_job.values().map(|live| live.fence)
    }

    pub(super) fn get(&self, job: JobId) -> Option<&Live> {
        self.by_job.get(&job)
    }

    /// The lease, if it is the live one of its job.
    pub(super) fn held(&self, fence: &Fence) -> Option<&Live> {
        self.by_job.get(&fence.job).filter(|live| live.fence == *fence)
    }

    /// The jobs a worker has, in the order of submission.
    pub(super) fn of_worker(&self, worker: &WorkerId) -> impl Iterator<Item = &Live> {
        let jobs = self.by_worker.get(worker.0.as_str()).into_iter().flatten();
        jobs.filter_map(|(_, job)| self.by_job.get(job))
    }

    pub(super) fn insert(&mut self, live: Live) {
        if let Some(deadline) = live.deadline() {
            self.by_deadline.insert((deadline, live.seq, live.fence.job));
        }
        self.by_worker.entry(live.worker.clone()).or_default().insert((live.seq, live.fence.job));
        self.by_job.insert(live.fence.job, live);
    }

    pub(super) fn remove(&mut self, job: JobId) -> Option<Live> {
        let live = self.by_job.remove(&job)?;
        if let Some(deadline) = live.deadline() {
            self.by_deadline.remove(&(deadline, live.seq, job));
        }
        if let Some(jobs) = self.by_worker.get_mut(&live.worker) {
            jobs.remove(&(live.seq, job));
            if jobs.is_empty() {
                self.by_worker.remove(&live.worker);
            }
        }
        Some(live)
    }

    /// Changes a lease in place.
    pub(super) fn change(&mut self, job: JobId, change: impl FnOnce(&mut Live)) -> Option<&Live> {
        let mut live = self.remove(job)?;
        change(&mut live);
        self.insert(live);
        self.by_job.get(&job)
    }

    /// The jobs whose leases time has something to do to, in its order; at most `limit` and one more.
    pub(super) fn over(&self, now: Timestamp, limit: usize) -> Vec<JobId> {
        let over = self.by_deadline.iter().take_while(|(at, ..)| *at <= now);
        over.take(limit.saturating_add(1)).map(|(.., job)| *job).collect()
    }

    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.by_deadline.first().map(|(at, ..)| *at)
    }
}

/// How an attempt ended, as its row says.
#[derive(Debug)]
pub(super) struct Ending<'a> {
    pub(super) status: AttemptStatus,
    pub(super) result: Option<&'a executr_api::AttemptResult>,
}

impl Writer<'_> {
    /// Prolongs leases.
    pub(super) fn renew(&mut self, renewals: &[Renewal]) -> Result<Vec<RenewAnswer>, StoreError> {
        let now = self.now();
        let mut answers = Vec::with_capacity(renewals.len());
        for renewal in renewals {
            let Some(live) = self.leases.held(&renewal.fence) else {
                answers.push(RenewAnswer::LeaseLost);
                continue;
            };
            let (seq, bucket, reclaimable, cancelling) = (live.seq, live.bucket, live.reclaimable, live.cancelling);
            let expires_at = now.plus(renewal.lease);
            self.execute(
                "UPDATE lease SET expires_at = ?2, period = ?3, renewed_at = ?4, reclaimable = 0 WHERE seq = ?1",
                params![seq, expires_at.0, micros(renewal.lease), now.0],
            )?;
            if reclaimable {
                self.leave_ready(bucket, seq)?;
            }
            self.leases.change(renewal.fence.job, |live| {
                live.expires_at = expires_at;
                live.period = renewal.lease;
                live.reclaimable = false;
            });
            answers.push(RenewAnswer::Renewed { expires_at, cancelling });
        }
        Ok(answers)
    }

    /// Ends the live lease of a job: its attempt is recorded, its output sealed. Counts and the job's row are the caller's.
    /// Returns the lease and how much output there is.
    pub(super) fn end_lease(&mut self, job: JobId, ending: &Ending<'_>) -> Result<(Live, u64), StoreError> {
        let live = self.leases.remove(job).ok_or_else(|| damaged("a lease that is gone"))?;
        if live.reclaimable {
            self.leave_ready(live.bucket, live.seq)?;
        }
        self.execute("DELETE FROM lease WHERE seq = ?1", [live.seq])?;
        let sealed = self.logs.seal(&live.fence)?;
        let key = attempt_key(live.seq, live.fence.attempt)
            .ok_or_else(|| damaged(format_args!("attempt {}", live.fence.attempt)))?;
        let result = ending.result;
        let usage = result.and_then(|result| result.usage.as_ref()).map(to_json).transpose()?;
        let steps =
            result.filter(|result| !result.steps.is_empty()).map(|result| to_json(&result.steps)).transpose()?;
        self.execute(
            "INSERT INTO attempt VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            params![
                key,
                live.fence.lease.0.as_bytes(),
                &*live.worker,
                live.ip.as_deref(),
                live.started_at.0,
                self.now().0,
                status_code(ending.status),
                result.and_then(|result| result.exit_code),
                result.and_then(|result| result.error_message.as_deref()),
                usage,
                steps,
                integer(sealed.end),
                sealed.inline.as_deref(),
            ],
        )?;
        self.forget_log(live.fence);
        Ok((live, sealed.end))
    }

    /// The job joins the ready set.
    pub(super) fn enter_ready(&mut self, bucket: BucketId, seq: i64) -> Result<(), StoreError> {
        self.execute("INSERT INTO ready (bucket, seq) VALUES (?1, ?2)", params![bucket.0, seq])?;
        self.index.enter(bucket, seq)
    }

    /// The job leaves the ready set.
    pub(super) fn leave_ready(&mut self, bucket: BucketId, seq: i64) -> Result<(), StoreError> {
        self.execute("DELETE FROM ready WHERE bucket = ?1 AND seq = ?2", params![bucket.0, seq])?;
        self.index.leave(bucket, seq)
    }
}
