//! What is told of a run with a lease, and with a question.

use std::collections::BTreeMap;

use executr_api::{Fence, Need, NeedResult};
use executr_spec::{JobId, SpecJson, WorkerId};
use rusqlite::params;

use super::artifacts::artifact;
use super::follow::Followed;
use super::live::Place;
use crate::lifecycle::graph::LEASE_RAN_OUT;
use crate::sqlite::error::{damaged, from_sqlite};
use crate::sqlite::row::{job_id, json};
use crate::sqlite::writer::Writer;
use crate::{ClaimedRun, Question, StoreError};

impl Writer<'_> {
    /// A job of a run was handed out: what follows, and what its worker is told. Whether others were moved by it.
    pub(in crate::sqlite) fn handed_out(
        &mut self,
        place: Place,
        fence: Fence,
        worker: &str,
        followed: &mut Followed,
    ) -> Result<(ClaimedRun, bool), StoreError> {
        let now = self.now();
        let run = self.runs.get_mut(place.number)?;
        run.started_at.get_or_insert(now);
        let pinned = run.node(place.index).workspace.is_some();
        self.tell_started(place, fence.attempt, worker, followed)?;
        let mut claimed = self.claimed_run(place)?;
        let mut moved = false;
        if pinned && let Some((id, others)) = self.hold_workspace(place, &WorkerId(worker.to_owned()), followed)? {
            claimed.workspace = Some(id);
            moved = others;
        }
        Ok((claimed, moved))
    }

    /// The lease of a job of a run was taken over by another claim.
    pub(in crate::sqlite) fn lease_was_lost(
        &mut self,
        place: Place,
        attempt: u32,
        followed: &mut Followed,
    ) -> Result<(), StoreError> {
        self.let_go_of_blobs(place)?;
        self.tell_retrying(place, attempt, Some(LEASE_RAN_OUT), followed)
    }

    /// All but the workspace.
    fn claimed_run(&self, place: Place) -> Result<ClaimedRun, StoreError> {
        let run = self.runs.get(place.number)?;
        let mut artifacts = Vec::new();
        if run.node(place.index).has_inputs {
            let inputs = self.find("SELECT inputs FROM run_job WHERE seq = ?1", [place.seq()], |row| row.get(0))?;
            let inputs: String = inputs.ok_or_else(|| damaged(format_args!("no job {}", place.seq())))?;
            for (from, name) in json::<Vec<(u32, String)>>(&inputs)? {
                let mut statement = self
                    .statements
                    .get("SELECT name, tree, size, files FROM artifact WHERE number = ?1 AND seq = ?2 AND name = ?3")?;
                let mut rows =
                    statement.query(params![place.number, place.at(from).seq(), name]).map_err(from_sqlite)?;
                if let Some(row) = rows.next().map_err(from_sqlite)? {
                    artifacts.push(artifact(row, 0)?);
                }
            }
        }
        Ok(ClaimedRun { run: run.id, needs: self.needs_of(place)?, artifacts, workspace: None })
    }

    /// The direct needs of a job, those that are final.
    fn needs_of(&self, place: Place) -> Result<BTreeMap<String, Need>, StoreError> {
        let run = self.runs.get(place.number)?;
        let mut needs = BTreeMap::new();
        for need in run.needs.of(place.index) {
            let node = run.node(*need);
            let Some(result) = NeedResult::of(node.state) else { continue };
            let outputs = if node.has_outputs {
                let seq = place.at(*need).seq();
                let outputs = self.find("SELECT outputs FROM run_job WHERE seq = ?1", [seq], |row| row.get(0))?;
                json(&outputs.unwrap_or_else(|| "{}".to_owned()))?
            } else {
                BTreeMap::new()
            };
            needs.insert(run.names[*need as usize].to_string(), Need { result, outputs });
        }
        Ok(needs)
    }

    /// What the claims of these jobs brought, as far as they are held.
    pub(super) fn claimed_runs(&self, jobs: &[JobId]) -> Result<Vec<(JobId, ClaimedRun)>, StoreError> {
        let mut claimed = Vec::new();
        for job in jobs {
            let Some(live) = self.leases.get(*job) else { continue };
            let Some(place) = self.runs.place(live.seq) else { continue };
            let workspace = self.workspace_in_use(place, &live.worker_id())?;
            claimed.push((*job, ClaimedRun { workspace, ..self.claimed_run(place)? }));
        }
        Ok(claimed)
    }

    /// The jobs that are asked about, oldest first.
    pub(super) fn questions(&self, limit: u32) -> Result<Vec<Question>, StoreError> {
        self.runs.asked.iter().take(limit as usize).map(|seq| self.question(*seq)).collect()
    }

    /// The questions about these jobs, as far as they are asked about.
    pub(super) fn questions_of(&self, jobs: &[JobId]) -> Result<Vec<Question>, StoreError> {
        let mut questions = Vec::new();
        for job in jobs {
            let seq = self.find("SELECT seq FROM job WHERE id = ?1", [job.0.as_bytes()], |row| row.get(0))?;
            if let Some(seq) = seq.filter(|seq| self.runs.asked.contains(seq)) {
                questions.push(self.question(seq)?);
            }
        }
        Ok(questions)
    }

    fn question(&self, seq: i64) -> Result<Question, StoreError> {
        let place = self.runs.place(seq).ok_or_else(|| damaged(format_args!("a question about job {seq}")))?;
        let run = self.runs.get(place.number)?;
        let node = run.node(place.index);
        let job = self.find("SELECT j.id, s.spec FROM job j JOIN spec s USING (seq) WHERE seq = ?1", [seq], |row| {
            Ok((row.get(0).map(job_id)?, row.get::<_, String>(1)?))
        })?;
        let (job, spec) = job.ok_or_else(|| damaged(format_args!("no job {seq}")))?;
        Ok(Question {
            job,
            run: run.id,
            spec: SpecJson::from_text(spec).map_err(damaged)?,
            index: place.index,
            needs: self.needs_of(place)?,
            failed_before: node.before.failed,
            cancelled_before: node.before.cancelled,
            run_cancelling: run.stop().is_asked(),
        })
    }
}
