//! Recording runs.

use std::collections::BTreeSet;

use executr_api::JobState;
use executr_spec::Digest;
use rusqlite::params;

use super::events::JobEnd;
use super::follow::Followed;
use super::live::{Edges, Live, Node, Place};
use super::load::{gate_code, places_to_bytes, run_id, run_state_code};
use crate::lifecycle::graph::{Before, Stop, Turn, after_needs};
use crate::sqlite::index::{BucketId, BucketKey};
use crate::sqlite::row::{STATES, state_code, to_json};
use crate::sqlite::writer::Writer;
use crate::{NewRun, NewRunJob, RunAnswer, RunProgress, StoreError};

impl Writer<'_> {
    /// Records a run with all its jobs, or nothing.
    pub(super) fn submit_run(&mut self, new: &NewRun) -> Result<RunAnswer, StoreError> {
        if let Some(key) = &new.idempotency_key {
            let earlier = self.find(
                "SELECT r.id FROM run_key k JOIN run r USING (number) WHERE k.tenant = ?1 AND k.key = ?2",
                params![new.tenant.as_str(), key],
                |row| row.get(0).map(run_id),
            )?;
            if let Some(id) = earlier {
                return Ok(RunAnswer { id, existing: true, progress: RunProgress::default() });
            }
        }
        // Those that were done are final at once, and ask for nothing.
        self.check_classes(new.jobs.iter().map(|job| job.done.is_none().then_some(&job.job)))?;
        let number = self.last_seq + 1;
        let mut followed = Followed::default();
        self.insert_run(number, new)?;
        self.runs.changed.insert(number);
        let mut needs = Edges::default();
        for job in &new.jobs {
            needs.push(job.needs.iter().copied());
        }
        let run = Live {
            id: new.id,
            fail_fast: new.fail_fast,
            stopping: false,
            deadline: new.timeout.map(|timeout| self.now().plus(timeout)),
            cancelling: false,
            at_once: false,
            created_at: self.now(),
            started_at: None,
            ended: None,
            message: None,
            last_event: 0,
            failed: 0,
            counts: [0; STATES.len()],
            names: Vec::with_capacity(new.jobs.len()),
            nodes: Vec::with_capacity(new.jobs.len()),
            successors: needs.reversed(),
            needs,
            workspaces: Vec::new(),
        };
        self.runs.insert(number, run);
        self.last_seq = number;
        let mut bucket: Option<(BucketKey, BucketId)> = None;
        for job in &new.jobs {
            let id = self.bucket_of(&job.job, &mut bucket)?;
            self.add_job(number, job, id)?;
        }
        self.tell_created(number, &mut followed)?;
        // In the order of the places; each comes after those it needs.
        for (index, job) in (0..).zip(&new.jobs) {
            let place = Place { number, index };
            let node = self.runs.node(place)?;
            if let Some(done) = &job.done {
                self.record_handed(place, &done.handed.outputs, &done.handed.artifacts)?;
                for (tree, blobs) in &done.kept {
                    self.keep_blobs(place.seq(), *tree, blobs)?;
                }
                self.end_done(place, &mut followed)?;
            } else if node.state == JobState::Ready {
                followed.readied.add(node.bucket);
            } else if node.pending == 0 {
                self.take_turn(place, &mut followed)?;
            }
        }
        self.end_run(number, &mut followed)?;
        self.release_permits(&mut followed)?;
        Ok(RunAnswer { id: new.id, existing: false, progress: followed.into_progress(&self.index)? })
    }

    fn insert_run(&self, number: i64, new: &NewRun) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO run VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 0, ?12, NULL, NULL, NULL, 0,
                                     0, 0, 0, 0, 0, 0, 0, 0, 0, 0)",
            params![
                number,
                new.id.0.as_bytes(),
                new.tenant.as_str(),
                new.name,
                new.jobs.len() as i64,
                new.fail_fast,
                self.now().0,
                new.timeout.map(|timeout| self.now().plus(timeout).0),
                new.source.map(|source| source.0),
                new.rerun_of.map(|run| *run.0.as_bytes()),
                new.idempotency_key,
                run_state_code(executr_api::RunState::Running),
            ],
        )?;
        let blobs = (!new.blobs.is_empty()).then(|| new.blobs.iter().flat_map(|blob| blob.0).collect::<Vec<u8>>());
        self.execute("INSERT INTO run_plan VALUES (?1, ?2, ?3)", params![number, blobs, &*new.plan])?;
        for Digest(digest) in &new.blobs {
            self.execute("INSERT OR IGNORE INTO blob_use (digest, seq) VALUES (?1, ?2)", params![digest, number])?;
        }
        if let Some(key) = &new.idempotency_key {
            self.execute(
                "INSERT INTO run_key (tenant, key, number) VALUES (?1, ?2, ?3)",
                params![new.tenant.as_str(), key, number],
            )?;
        }
        Ok(())
    }

    /// Records the next job of a run: ready at once, when nothing stands in its way, else waiting.
    fn add_job(&mut self, number: i64, new: &NewRunJob, bucket: BucketId) -> Result<(), StoreError> {
        let keyed = new.job.concurrency.is_some();
        let goes = new.needs.is_empty() && after_needs(new.gate, Before::default(), Stop::No) == Turn::Go;
        let goes = goes && !keyed && new.done.is_none();
        let state = if goes { JobState::Ready } else { JobState::Waiting };
        let seq = self.insert_job(&new.job, bucket, state, None)?;
        self.index.step(bucket, None, Some(state))?;
        if state == JobState::Ready {
            self.enter_ready(bucket, seq)?;
        }
        let inputs = (!new.inputs.is_empty()).then(|| to_json(&new.inputs)).transpose()?;
        self.execute(
            "INSERT INTO run_job VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, NULL)",
            params![
                seq,
                new.name,
                gate_code(new.gate),
                new.continue_on_error,
                new.done.is_some(),
                new.pinned,
                places_to_bytes(&new.needs),
                inputs,
            ],
        )?;
        let run = self.runs.get_mut(number)?;
        let node = Node {
            state,
            gate: new.gate,
            continue_on_error: new.continue_on_error,
            done: new.done.is_some(),
            handed_out: false,
            asked: false,
            keyed,
            has_inputs: inputs.is_some(),
            has_outputs: false,
            pending: new.needs.len() as u32,
            before: Before::default(),
            workspace: new.pinned.as_deref().map(|executor| run.workspace(executor)).transpose()?,
            bucket,
        };
        run.add(node, new.name.as_str().into());
        Ok(())
    }

    /// A job that was done in an earlier run is completed.
    fn end_done(&mut self, place: Place, followed: &mut Followed) -> Result<(), StoreError> {
        let (seq, node) = (place.seq(), self.runs.node(place)?);
        let id = self.job_at(place)?;
        self.execute(
            "UPDATE job SET state = ?2, completed_at = ?3 WHERE seq = ?1",
            params![seq, state_code(JobState::Completed), self.now().0],
        )?;
        self.step(node.bucket, seq, node.state, JobState::Completed)?;
        followed.ended(id, JobState::Completed);
        let end = JobEnd { state: JobState::Completed, attempt: 0, exit_code: None, message: None };
        // Its successors come after it, and have their turn then.
        let _: BTreeSet<u32> = self.note_end(place, end, followed)?;
        Ok(())
    }
}
