//! The ends of attempts: results, leases given back, jobs that time ends, cancellations.

use executr_api::{AttemptResult, AttemptStatus, Fence, JobState, Outcome};
use executr_spec::{JobId, Timestamp};
use rusqlite::params;

use super::error::damaged;
use super::index::BucketId;
use super::lease::{Ending, Live};
use super::row::{attempt_key, integer, lease_id, state, state_code, status, to_json};
use super::runs::{AttemptEnd, Followed, JobEnd};
use super::writer::Writer;
use crate::lifecycle::{Next, after, attempt_status, fails_run, lost_too_often};
use crate::{Advanced, CancelAnswer, Cancelled, Finish, FinishAnswer, Finished, Return, StoreError};

/// What a job's error becomes.
enum Message<'a> {
    Stays,
    Becomes(Option<&'a str>),
}

/// How a job goes on after an attempt.
struct Onward<'a> {
    state: JobState,
    due_at: Option<Timestamp>,
    result: Option<&'a AttemptResult>,
    message: Message<'a>,
}

impl Writer<'_> {
    /// Takes results.
    pub(super) fn finish(&mut self, results: &[Finish]) -> Result<Vec<FinishAnswer>, StoreError> {
        results.iter().map(|finish| self.finish_one(&finish.result)).collect()
    }

    fn finish_one(&mut self, result: &AttemptResult) -> Result<FinishAnswer, StoreError> {
        let Some(live) = self.leases.held(&result.fence) else {
            return self.not_held(&result.fence, |status| {
                matches!(status, AttemptStatus::Completed | AttemptStatus::Failed | AttemptStatus::Cancelled)
            });
        };
        let cancelling = live.cancelling;
        let next = after(result, cancelling, live.failures, live.max_retries, &live.backoff);
        if fails_run(result, next) {
            self.take_no_failure(live.seq)?;
        }
        let status = attempt_status(result.outcome, cancelling);
        self.logs.complete(&result.fence, result.output.as_ref())?;
        let (mut live, end) = self.end_lease(result.fence.job, &Ending { status, result: Some(result) })?;
        if status == AttemptStatus::Failed {
            live.failures += 1;
        }
        let (state, due_at) = match next {
            Next::Final(state) => (state, None),
            Next::Retry(wait) if wait.is_zero() => (JobState::Ready, None),
            Next::Retry(wait) => (JobState::Scheduled, Some(self.now().plus(wait))),
        };
        let message = match result.outcome {
            Outcome::Succeeded => Message::Becomes(None),
            _ if cancelling => Message::Stays,
            _ => Message::Becomes(result.error_message.as_deref()),
        };
        let mut followed = Followed::default();
        self.go_on(&live, end, Onward { state, due_at, result: Some(result), message }, &mut followed)?;
        self.taken(&live, state, due_at, followed)
    }

    /// Takes leases back.
    pub(super) fn give_back(&mut self, returns: &[Return]) -> Result<Vec<FinishAnswer>, StoreError> {
        returns.iter().map(|back| self.give_back_one(&back.fence)).collect()
    }

    fn give_back_one(&mut self, fence: &Fence) -> Result<FinishAnswer, StoreError> {
        let Some(live) = self.leases.held(fence) else {
            return self.not_held(fence, |status| status == AttemptStatus::Returned);
        };
        let state = if live.cancelling { JobState::Cancelled } else { JobState::Ready };
        let (live, end) = self.end_lease(fence.job, &Ending { status: AttemptStatus::Returned, result: None })?;
        let onward = Onward { state, due_at: None, result: None, message: Message::Stays };
        let mut followed = Followed::default();
        self.go_on(&live, end, onward, &mut followed)?;
        self.taken(&live, state, None, followed)
    }

    fn taken(
        &self,
        live: &Live,
        state: JobState,
        next_at: Option<Timestamp>,
        followed: Followed,
    ) -> Result<FinishAnswer, StoreError> {
        let (readied, run) = followed.into_parts(&self.index)?;
        Ok(FinishAnswer::Taken(Finished {
            state,
            started_at: live.started_at,
            worker: live.worker_id(),
            next_at,
            readied,
            run,
        }))
    }

    /// The answer for a fence that isn't held: taken before, if its attempt ended in a way that `before` says, else lost.
    fn not_held(&self, fence: &Fence, before: impl Fn(AttemptStatus) -> bool) -> Result<FinishAnswer, StoreError> {
        let job = self.find("SELECT seq, state FROM job WHERE id = ?1", [fence.job.0.as_bytes()], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
        let Some((seq, code)) = job else { return Ok(FinishAnswer::LeaseLost) };
        let Some(key) = attempt_key(seq, fence.attempt) else { return Ok(FinishAnswer::LeaseLost) };
        let ended =
            self.find("SELECT lease, status FROM attempt WHERE key = ?1", [key], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let Some((lease, ended)) = ended else { return Ok(FinishAnswer::LeaseLost) };
        if lease_id(lease) != fence.lease || !before(status(ended)?) {
            return Ok(FinishAnswer::LeaseLost);
        }
        Ok(FinishAnswer::Before(match self.leases.get(fence.job) {
            Some(live) => live.state(),
            None => state(code)?,
        }))
    }

    /// Writes down how the job stands after its attempt, and moves it there.
    fn go_on(
        &mut self,
        live: &Live,
        output_bytes: u64,
        onward: Onward<'_>,
        followed: &mut Followed,
    ) -> Result<(), StoreError> {
        let Onward { state, due_at, result, message } = onward;
        let completed_at = state.is_final().then(|| self.now());
        let usage = result.and_then(|result| result.usage.as_ref()).map(to_json).transpose()?;
        let (new_message, message) = match message {
            Message::Stays => (false, None),
            Message::Becomes(message) => (true, message),
        };
        self.execute(
            "UPDATE job SET state = ?2, started_at = ?3, completed_at = ?4, due_at = ?5, attempt = ?6, failures = ?7,
                    lost_leases = ?8, worker = ?9, output_bytes = ?10,
                    exit_code = CASE WHEN ?11 THEN ?12 ELSE exit_code END,
                    usage = CASE WHEN ?11 THEN ?13 ELSE usage END,
                    error_message = CASE WHEN ?14 THEN ?15 ELSE error_message END
             WHERE seq = ?1",
            params![
                live.seq,
                state_code(state),
                live.started_at.0,
                completed_at.map(|at| at.0),
                due_at.map(|at| at.0),
                live.fence.attempt,
                live.failures,
                live.lost_leases,
                &*live.worker,
                integer(output_bytes),
                result.is_some(),
                result.and_then(|result| result.exit_code),
                usage,
                new_message,
                message,
            ],
        )?;
        let place = self.runs.place(live.seq);
        let bucket = if state == JobState::Ready {
            self.bucket_to_enter(live.seq, live.bucket, live.state(), None)?
        } else {
            live.bucket
        };
        self.step(bucket, live.seq, live.state(), state)?;
        match (state, due_at) {
            (JobState::Ready, _) => {
                self.enter_ready(bucket, live.seq)?;
                followed.readied.add(bucket);
            }
            (JobState::Scheduled, Some(at)) => {
                self.execute("INSERT INTO due (due_at, seq) VALUES (?1, ?2)", params![at.0, live.seq])?;
            }
            _ if place.is_none() => self.note_final(live.seq)?,
            _ => {}
        }
        if let Some(place) = place {
            let ended =
                AttemptEnd { state, attempt: live.fence.attempt, result, message: new_message.then_some(message) };
            self.attempt_ended(place, ended, followed)?;
        }
        if live.keyed && state != JobState::Ready {
            let key = self.index.key(bucket)?;
            self.release_permit(live.seq, &key.tenant, &mut followed.readied)?;
        }
        self.release_permits(followed)
    }

    /// Lets retention find the job.
    fn note_final(&self, seq: i64) -> Result<(), StoreError> {
        self.execute("INSERT INTO final (completed_at, seq) VALUES (?1, ?2)", params![self.now().0, seq]).map(drop)
    }

    /// Cancels jobs.
    pub(super) fn cancel(
        &mut self,
        jobs: &[JobId],
        pending_only: bool,
        reason: &str,
    ) -> Result<Vec<CancelAnswer>, StoreError> {
        jobs.iter().map(|job| self.cancel_one(*job, pending_only, reason)).collect()
    }

    fn cancel_one(&mut self, id: JobId, pending_only: bool, reason: &str) -> Result<CancelAnswer, StoreError> {
        if let Some(live) = self.leases.get(id) {
            let live = live.clone();
            if pending_only {
                return Ok(CancelAnswer::Running);
            }
            if !live.cancelling {
                self.ask_to_stop(&live, reason)?;
            }
            return Ok(CancelAnswer::Cancelling { fence: live.fence, worker: live.worker_id() });
        }
        let job = self.find(
            "SELECT seq, bucket, state, concurrency_key IS NOT NULL, attempt, exit_code FROM job WHERE id = ?1",
            [id.0.as_bytes()],
            |row| {
                let bucket = BucketId(row.get(1)?);
                Ok((row.get::<_, i64>(0)?, bucket, row.get::<_, u8>(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
            },
        )?;
        let Some((seq, bucket, code, keyed, attempt, exit_code)) = job else { return Ok(CancelAnswer::NotFound) };
        let from = state(code)?;
        if from.is_final() {
            return Ok(CancelAnswer::Final(from));
        }
        self.leave_pending(seq, bucket, from)?;
        self.execute(
            "UPDATE job SET state = ?2, completed_at = ?3, due_at = NULL, error_message = ?4 WHERE seq = ?1",
            params![seq, state_code(JobState::Cancelled), self.now().0, reason],
        )?;
        self.step(bucket, seq, from, JobState::Cancelled)?;
        let mut followed = Followed::default();
        if let Some(place) = self.runs.place(seq) {
            let end = JobEnd { state: JobState::Cancelled, attempt, exit_code, message: Some(reason) };
            self.job_ended(place, end, &mut followed)?;
        } else {
            self.note_final(seq)?;
        }
        if from == JobState::Ready && keyed {
            let key = self.index.key(bucket)?;
            self.release_permit(seq, &key.tenant, &mut followed.readied)?;
        }
        self.release_permits(&mut followed)?;
        let (readied, run) = followed.into_parts(&self.index)?;
        Ok(CancelAnswer::Cancelled(Cancelled { readied, run }))
    }

    /// Asks the worker that has a job to stop.
    pub(super) fn ask_to_stop(&mut self, live: &Live, reason: &str) -> Result<(), StoreError> {
        self.execute("UPDATE lease SET cancelling = 1, reclaimable = 0 WHERE seq = ?1", [live.seq])?;
        self.execute("UPDATE job SET error_message = ?2 WHERE seq = ?1", params![live.seq, reason])?;
        if live.reclaimable {
            self.leave_ready(live.bucket, live.seq)?;
        }
        self.step(live.bucket, live.seq, JobState::Running, JobState::Cancelling)?;
        self.leases.change(live.fence.job, |live| {
            live.cancelling = true;
            live.reclaimable = false;
        });
        Ok(())
    }

    /// Moves what time moves.
    pub(super) fn advance(&mut self, may_reclaim: bool, limit: usize) -> Result<Advanced, StoreError> {
        let now = self.now();
        let mut answer = Advanced::default();
        let mut followed = Followed::default();
        if may_reclaim {
            let over = self.leases.over(now, limit);
            answer.more |= over.len() > limit;
            for job in over.into_iter().take(limit) {
                self.lease_ran_out(job, &mut answer, &mut followed)?;
            }
        }
        answer.more |= self.stop_late_runs(now, limit, &mut followed)?;
        let due = self.due(now, limit)?;
        answer.more |= due.len() > limit;
        for (at, seq) in due.into_iter().take(limit) {
            self.execute("DELETE FROM due WHERE due_at = ?1 AND seq = ?2", params![at, seq])?;
            self.make_ready(seq, JobState::Scheduled, &mut followed.readied)?;
        }
        (answer.readied, answer.run) = followed.into_parts(&self.index)?;
        let next_due = self.find("SELECT due_at FROM due ORDER BY due_at LIMIT 1", [], |row| row.get(0))?;
        let next_lease = self.leases.next_deadline().filter(|_| may_reclaim);
        answer.next_at = [next_due.map(Timestamp), next_lease, self.runs.next_deadline()].into_iter().flatten().min();
        Ok(answer)
    }

    fn lease_ran_out(&mut self, job: JobId, answer: &mut Advanced, followed: &mut Followed) -> Result<(), StoreError> {
        let live = self.leases.get(job).cloned().ok_or_else(|| damaged("a lease that is gone"))?;
        if !live.cancelling && !live.is_last() {
            let worker = live.worker_id();
            self.execute("UPDATE lease SET reclaimable = 1 WHERE seq = ?1", [live.seq])?;
            let bucket = self.bucket_to_enter(live.seq, live.bucket, JobState::Running, Some(&worker))?;
            self.enter_ready(bucket, live.seq)?;
            self.leases.change(job, |live| {
                live.reclaimable = true;
                live.bucket = bucket;
            });
            answer.reclaimable.push((job, worker));
            followed.readied.add(bucket);
            return Ok(());
        }
        let (mut live, end) = self.end_lease(job, &Ending { status: AttemptStatus::Lost, result: None })?;
        live.lost_leases += 1;
        let why = lost_too_often(live.lost_leases);
        let (state, message) = if live.cancelling {
            (JobState::Cancelled, Message::Stays)
        } else {
            (JobState::Failed, Message::Becomes(Some(&*why)))
        };
        answer.ended.push((job, state, live.fence, live.worker_id()));
        self.go_on(&live, end, Onward { state, due_at: None, result: None, message }, followed)
    }

    fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<(i64, i64)>, StoreError> {
        let limit = integer(limit as u64).saturating_add(1);
        let mut statement = self
            .connection
            .prepare_cached("SELECT due_at, seq FROM due WHERE due_at <= ?1 ORDER BY due_at, seq LIMIT ?2")
            .map_err(super::error::from_sqlite)?;
        let rows = statement
            .query_map(params![now.0, limit], |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(super::error::from_sqlite)?;
        rows.collect::<Result<_, _>>().map_err(super::error::from_sqlite)
    }
}
