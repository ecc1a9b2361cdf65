//! What follows in a run from the end of a job.

use std::collections::BTreeSet;

use executr_api::{JobState, RunState};
use executr_spec::{JobId, RunId};
use rusqlite::params;

use super::events::JobEnd;
use super::live::Place;
use crate::lifecycle::graph::{Turn, after_needs, end_of_run, first_failure, is_stopped, why_stopped};
use crate::sqlite::error::damaged;
use crate::sqlite::index::{BucketId, Index, ReadyCount};
use crate::sqlite::row::{job_id, state_code};
use crate::sqlite::writer::Writer;
use crate::{Readied, RunEnd, RunProgress, StoreError};

/// What follows from one item of a command.
#[derive(Debug, Default)]
pub(in crate::sqlite) struct Followed {
    /// What became ready; not in `run`.
    pub(in crate::sqlite) readied: ReadyCount,
    pub(super) run: RunProgress,
    /// Jobs that ended with a permit of their key, to be given back.
    freed: Vec<(i64, BucketId)>,
}

impl Followed {
    /// An event of the run was written.
    pub(super) fn changed(&mut self, run: RunId) {
        if let Err(at) = self.run.changed.binary_search(&run) {
            self.run.changed.insert(at, run);
        }
    }

    /// A job became final without a worker's doing.
    pub(super) fn ended(&mut self, job: JobId, state: JobState) {
        self.run.ended.push((job, state));
    }

    /// For a command that tells apart what became ready.
    pub(in crate::sqlite) fn into_parts(self, index: &Index) -> Result<(Vec<Readied>, RunProgress), StoreError> {
        Ok((self.readied.into_answer(index)?, self.run))
    }

    /// For a command that doesn't.
    pub(in crate::sqlite) fn into_progress(self, index: &Index) -> Result<RunProgress, StoreError> {
        let (readied, run) = self.into_parts(index)?;
        Ok(RunProgress { readied, ..run })
    }
}

/// How a job without a worker ends.
pub(super) struct Unworked {
    pub(super) state: JobState,
    pub(super) message: Option<String>,
}

impl Writer<'_> {
    /// A job of a run became final, which its row, the counts and memory say: all that follows.
    pub(in crate::sqlite) fn job_ended(
        &mut self,
        place: Place,
        end: JobEnd<'_>,
        followed: &mut Followed,
    ) -> Result<(), StoreError> {
        let turns = self.note_end(place, end, followed)?;
        self.follow(place.number, turns, followed)
    }

    /// Tells of the end of a job; returns those whose turn it is by that.
    pub(super) fn note_end(
        &mut self,
        place: Place,
        end: JobEnd<'_>,
        followed: &mut Followed,
    ) -> Result<BTreeSet<u32>, StoreError> {
        let run = self.runs.get_mut(place.number)?;
        let node = run.node(place.index);
        let mut turns: BTreeSet<u32> = run.hand_on(place.index).into_iter().collect();
        if node.state == JobState::Failed && !node.continue_on_error && !run.cancelling {
            if run.failed == 1 {
                run.message = Some(first_failure(&run.names[place.index as usize]).into());
            }
            if run.begins_to_stop() {
                turns.extend(run.stopped());
            }
        }
        self.tell_ended(place, end, followed)?;
        self.release_workspace(node, place.number, followed)?;
        Ok(turns)
    }

    /// Decides about jobs in the order of their places, and about those whose turn comes by that; ends the run when all are final.
    pub(super) fn follow(
        &mut self,
        number: i64,
        mut turns: BTreeSet<u32>,
        followed: &mut Followed,
    ) -> Result<(), StoreError> {
        while let Some(index) = turns.pop_first() {
            turns.extend(self.take_turn(Place { number, index }, followed)?);
        }
        self.end_run(number, followed)
    }

    /// Decides about a job; returns those whose turn it is by that.
    pub(super) fn take_turn(&mut self, place: Place, followed: &mut Followed) -> Result<BTreeSet<u32>, StoreError> {
        let run = self.runs.get(place.number)?;
        let (node, stop) = (run.node(place.index), run.stop());
        let turn = if node.state == JobState::Waiting && !node.asked {
            after_needs(node.gate, node.before, stop)
        } else if is_stopped(node.gate, node.state, u32::from(node.handed_out), stop) {
            Turn::Cancel
        } else {
            return Ok(BTreeSet::new());
        };
        let unworked = match turn {
            Turn::Go => {
                self.let_go_on(place, followed)?;
                return Ok(BTreeSet::new());
            }
            Turn::Ask => {
                self.runs.node_mut(place)?.asked = true;
                self.runs.asked.insert(place.seq());
                followed.run.asked.push(self.job_at(place)?);
                return Ok(BTreeSet::new());
            }
            Turn::Skip(why) => Unworked { state: JobState::Skipped, message: Some(why.to_owned()) },
            Turn::Cancel => {
                let message = Some(why_stopped(stop, run.message.as_deref()));
                Unworked { state: JobState::Cancelled, message }
            }
        };
        self.end_unworked(place, unworked, followed)
    }

    pub(super) fn job_at(&self, place: Place) -> Result<JobId, StoreError> {
        let id = self.find("SELECT id FROM job WHERE seq = ?1", [place.seq()], |row| row.get(0).map(job_id))?;
        id.ok_or_else(|| damaged(format_args!("no job {}", place.seq())))
    }

    /// A waiting job becomes ready, or blocked by its key.
    pub(super) fn let_go_on(&mut self, place: Place, followed: &mut Followed) -> Result<(), StoreError> {
        let (seq, node) = (place.seq(), self.runs.node(place)?);
        if node.keyed {
            return self.make_ready(seq, JobState::Waiting, &mut followed.readied);
        }
        let bucket = self.bucket_to_enter(seq, node.bucket, JobState::Waiting, None)?;
        self.execute("UPDATE job SET state = ?2 WHERE seq = ?1", params![seq, state_code(JobState::Ready)])?;
        self.step(bucket, seq, JobState::Waiting, JobState::Ready)?;
        self.enter_ready(bucket, seq)?;
        followed.readied.add(bucket);
        Ok(())
    }

    /// Ends a job that no worker has; returns those whose turn it is by that.
    pub(super) fn end_unworked(
        &mut self,
        place: Place,
        unworked: Unworked,
        followed: &mut Followed,
    ) -> Result<BTreeSet<u32>, StoreError> {
        let (seq, node) = (place.seq(), self.runs.node(place)?);
        let Unworked { state, message } = unworked;
        self.leave_pending(seq, node.bucket, node.state)?;
        let job = self.find("SELECT id, attempt, exit_code FROM job WHERE seq = ?1", [seq], |row| {
            Ok((row.get(0).map(job_id)?, row.get(1)?, row.get(2)?))
        })?;
        let (id, attempt, exit_code) = job.ok_or_else(|| damaged(format_args!("no job {seq}")))?;
        self.execute(
            "UPDATE job SET state = ?2, completed_at = ?3, due_at = NULL, error_message = ?4 WHERE seq = ?1",
            params![seq, state_code(state), self.now().0, message],
        )?;
        self.step(node.bucket, seq, node.state, state)?;
        if node.state == JobState::Ready && node.keyed {
            followed.freed.push((seq, node.bucket));
        }
        followed.ended(id, state);
        self.note_end(place, JobEnd { state, attempt, exit_code, message: message.as_deref() }, followed)
    }

    pub(super) fn end_run(&mut self, number: i64, followed: &mut Followed) -> Result<(), StoreError> {
        let run = self.runs.get(number)?;
        if !run.is_done() || run.ended.is_some() {
            return Ok(());
        }
        let state: RunState = end_of_run(run.cancelling, run.failed, run.count(JobState::Cancelled));
        let now = self.now();
        let run = self.runs.get_mut(number)?;
        run.ended = Some(state);
        followed.run.over.push(RunEnd { run: run.id, state, created_at: run.created_at, completed_at: now });
        self.tell_run_ended(number, state, followed)
    }

    /// Gives back the permits of jobs that ended.
    pub(in crate::sqlite) fn release_permits(&mut self, followed: &mut Followed) -> Result<(), StoreError> {
        for (seq, bucket) in std::mem::take(&mut followed.freed) {
            let key = self.index.key(bucket)?;
            self.release_permit(seq, &key.tenant, &mut followed.readied)?;
        }
        Ok(())
    }
}
