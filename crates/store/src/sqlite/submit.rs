//! Recording jobs.

use std::collections::{HashMap, HashSet};

use executr_api::JobState;
use executr_spec::{Digest, QueueName, RequirementClass, Tenant, Timestamp};
use rusqlite::params;

use super::error::damaged;
use super::index::{BucketId, BucketKey, ReadyCount};
use super::row::{backoff_code, job_id, state, state_code};
use super::writer::Writer;
use crate::{NewJob, StoreError, SubmitAnswer, Submitted};

impl Writer<'_> {
    /// Records jobs, all or none.
    pub(super) fn submit(&mut self, jobs: &[NewJob]) -> Result<SubmitAnswer, StoreError> {
        let now = self.now();
        let earlier = self.earlier(jobs)?;
        let new = |(job, earlier)| matches!(earlier, &Earlier::None).then_some(job);
        self.check_classes(jobs.iter().zip(&earlier).map(new))?;
        let mut readied = ReadyCount::default();
        let mut answers: Vec<Submitted> = Vec::with_capacity(jobs.len());
        let mut bucket: Option<(BucketKey, BucketId)> = None;
        for (new, earlier) in jobs.iter().zip(earlier) {
            match earlier {
                Earlier::None => {
                    let id = self.bucket_of(new, &mut bucket)?;
                    let state = self.record(new, id, now, &mut readied)?;
                    answers.push(Submitted { id: new.id, state, existing: false, created_at: now });
                }
                Earlier::InBatch(at) => answers.push(Submitted { existing: true, ..answers[at] }),
                Earlier::Recorded(submitted) => answers.push(submitted),
            }
        }
        Ok(SubmitAnswer { jobs: answers, readied: readied.into_answer(&self.index)? })
    }

    /// Which of the jobs were submitted before.
    fn earlier(&self, jobs: &[NewJob]) -> Result<Vec<Earlier>, StoreError> {
        let mut in_batch: HashMap<(&Tenant, &str), usize> = HashMap::new();
        let mut earlier = Vec::with_capacity(jobs.len());
        for (at, new) in jobs.iter().enumerate() {
            let Some(key) = new.idempotency_key.as_deref() else {
                earlier.push(Earlier::None);
                continue;
            };
            if let Some(first) = in_batch.get(&(&new.tenant, key)) {
                earlier.push(Earlier::InBatch(*first));
                continue;
            }
            in_batch.insert((&new.tenant, key), at);
            let found = self.find(
                "SELECT j.id, j.state, j.created_at FROM idempotency i JOIN job j USING (seq) WHERE i.tenant = ?1 AND i.key = ?2",
                params![new.tenant.as_str(), key],
                |row| Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, u8>(1)?, row.get(2)?)),
            )?;
            earlier.push(match found {
                None => Earlier::None,
                Some((id, code, created_at)) => {
                    let id = job_id(id);
                    let state = match self.leases.get(id) {
                        Some(live) => live.state(),
                        None => state(code)?,
                    };
                    Earlier::Recorded(Submitted { id, state, existing: true, created_at: Timestamp(created_at) })
                }
            });
        }
        Ok(earlier)
    }

    /// Refuses the first job that would bring one class too many into its queue. Nothing is written before this.
    /// `None` stands for one that asks for nothing.
    pub(super) fn check_classes<'a>(&self, jobs: impl Iterator<Item = Option<&'a NewJob>>) -> Result<(), StoreError> {
        let mut coming: HashMap<&QueueName, HashSet<&RequirementClass>> = HashMap::new();
        let mut last: Option<(&QueueName, &RequirementClass)> = None;
        for (index, new) in jobs.enumerate() {
            let Some(new) = new.filter(|new| last != Some((&new.queue, &new.class))) else { continue };
            last = Some((&new.queue, &new.class));
            if self.index.has_class(&new.queue, &new.class) {
                continue;
            }
            let coming = coming.entry(&new.queue).or_default();
            coming.insert(&new.class);
            if coming.len() > self.index.room_for_classes(&new.queue) {
                return Err(StoreError::TooManyClasses { index, queue: new.queue.clone() });
            }
        }
        Ok(())
    }

    /// The job's bucket; that of the job before it, when it is the same.
    pub(super) fn bucket_of(
        &mut self,
        new: &NewJob,
        last: &mut Option<(BucketKey, BucketId)>,
    ) -> Result<BucketId, StoreError> {
        if let Some((key, id)) = last
            && key.tenant == new.tenant
            && key.queue == new.queue
            && key.priority == new.priority
            && key.class == new.class
        {
            return Ok(*id);
        }
        let key = BucketKey {
            queue: new.queue.clone(),
            class: new.class.clone(),
            priority: new.priority,
            tenant: new.tenant.clone(),
        };
        let id = self.index.bucket(&key, self.connection)?;
        *last = Some((key, id));
        Ok(id)
    }

    fn record(
        &mut self,
        new: &NewJob,
        bucket: BucketId,
        now: Timestamp,
        readied: &mut ReadyCount,
    ) -> Result<JobState, StoreError> {
        let due = new.run_at.filter(|at| *at > now);
        let state = match (due, &new.concurrency) {
            (Some(_), _) => JobState::Scheduled,
            (None, Some((key, limit))) if !self.take_permit(&new.tenant, key, *limit)? => JobState::Blocked,
            _ => JobState::Ready,
        };
        let seq = self.insert_job(new, bucket, state, due)?;
        if let Some(key) = &new.idempotency_key {
            self.execute(
                "INSERT INTO idempotency (tenant, key, seq) VALUES (?1, ?2, ?3)",
                params![new.tenant.as_str(), key, seq],
            )?;
        }
        self.index.step(bucket, None, Some(state))?;
        match (state, due, &new.concurrency) {
            (JobState::Scheduled, Some(at), _) => {
                self.execute("INSERT INTO due (due_at, seq) VALUES (?1, ?2)", params![at.0, seq])?;
            }
            (JobState::Blocked, _, Some((key, _))) => self.block(&new.tenant, key, new.priority, seq)?,
            (JobState::Ready, ..) => {
                self.enter_ready(bucket, seq)?;
                readied.add(bucket);
            }
            _ => return Err(damaged("a new job in no state")),
        }
        Ok(state)
    }

    /// Writes the rows of the next job itself; returns its number. Where its state has it stand is the caller's.
    pub(super) fn insert_job(
        &mut self,
        new: &NewJob,
        bucket: BucketId,
        state: JobState,
        due: Option<Timestamp>,
    ) -> Result<i64, StoreError> {
        let seq = self.last_seq + 1;
        self.execute(
            "INSERT INTO job VALUES (?1, ?2, ?3, ?4, ?5, ?6, NULL, NULL, ?7, 0, 0, 0, ?8, NULL, NULL, NULL, NULL, 0, ?9, ?10, ?11)",
            params![
                seq,
                new.id.0.as_bytes(),
                bucket.0,
                new.job_type.as_str(),
                state_code(state),
                self.now().0,
                due.map(|at| at.0),
                new.max_retries,
                new.idempotency_key,
                new.concurrency.as_ref().map(|(key, _)| key),
                new.concurrency.as_ref().map(|(_, limit)| limit),
            ],
        )?;
        self.last_seq = seq;
        let (kind, min, max) = backoff_code(&new.backoff);
        let blobs = (!new.blobs.is_empty()).then(|| new.blobs.iter().flat_map(|blob| blob.0).collect::<Vec<u8>>());
        self.execute(
            "INSERT INTO spec VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![seq, kind, min, max, blobs, new.spec.as_str()],
        )?;
        for Digest(digest) in &new.blobs {
            self.execute("INSERT OR IGNORE INTO blob_use (digest, seq) VALUES (?1, ?2)", params![digest, seq])?;
        }
        Ok(seq)
    }
}

/// What an idempotency key stands for already.
enum Earlier {
    None,
    /// The job at this place of the same batch.
    InBatch(usize),
    Recorded(Submitted),
}
