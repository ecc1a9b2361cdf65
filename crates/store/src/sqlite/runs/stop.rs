//! Asking runs to stop, and deciding about jobs.

use std::sync::Arc;

use executr_api::{JobState, RunCancel, RunState};
use executr_spec::{RunId, Timestamp};

use super::follow::{Followed, Unworked};
use super::live::{Node, Place};
use super::load::{run_state, timeout};
use crate::lifecycle::graph::{CONDITION_SAID_NO, outlives_cancel, took_too_long};
use crate::sqlite::error::damaged;
use crate::sqlite::writer::Writer;
use crate::{Decision, GateVerdict, RunProgress, StoreError};

impl Writer<'_> {
    /// The number of a run that isn't hidden, and its state.
    fn run_by_id(&self, id: RunId) -> Result<Option<(i64, RunState)>, StoreError> {
        let found =
            self.find("SELECT number, state FROM run WHERE id = ?1 AND NOT hidden", [id.0.as_bytes()], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        found.map(|(number, code)| Ok((number, run_state(code)?))).transpose()
    }

    /// Asks a run to stop.
    pub(super) fn cancel_run(
        &mut self,
        id: RunId,
        how: RunCancel,
        reason: &str,
    ) -> Result<Option<(RunState, RunProgress)>, StoreError> {
        let Some((number, state)) = self.run_by_id(id)? else { return Ok(None) };
        if state.is_final() || (state == RunState::Cancelling && how == RunCancel::InOrder) {
            return Ok(Some((state, RunProgress::default())));
        }
        let mut followed = Followed::default();
        self.stop_run(number, how, reason, &mut followed)?;
        let state = self.runs.get(number)?.ended.unwrap_or(RunState::Cancelling);
        Ok(Some((state, followed.into_progress(&self.index)?)))
    }

    /// Asks a run to stop that isn't final.
    fn stop_run(
        &mut self,
        number: i64,
        how: RunCancel,
        reason: &str,
        followed: &mut Followed,
    ) -> Result<(), StoreError> {
        let run = self.runs.get_mut(number)?;
        let at_once = how == RunCancel::AtOnce;
        let is_first = !std::mem::replace(&mut run.cancelling, true);
        run.at_once |= at_once;
        if is_first {
            run.message = Some(reason.into());
        }
        let reason = Arc::clone(run.message.get_or_insert_default());
        let is_asked = |node: &Node| match node.state {
            JobState::Running => at_once || !outlives_cancel(node.gate),
            JobState::Cancelling => at_once,
            _ => false,
        };
        let running: Vec<u32> =
            (0..).zip(&run.nodes).filter(|(_, node)| is_asked(node)).map(|(index, _)| index).collect();
        let turns = run.stopped().into_iter().collect();
        if is_first {
            if let Some(deadline) = run.deadline {
                self.runs.deadlines.remove(&(deadline, number));
            }
            self.tell_cancelling(number, &reason, followed)?;
        }
        for index in running {
            let job = self.job_at(Place { number, index })?;
            let live = self.leases.get(job).cloned().ok_or_else(|| damaged("a lease that is gone"))?;
            if !live.cancelling {
                self.ask_to_stop(&live, &reason)?;
            }
            let asked = if at_once { &mut followed.run.at_once } else { &mut followed.run.cancelling };
            asked.push((live.fence, live.worker_id()));
        }
        self.follow(number, turns, followed)?;
        self.release_permits(followed)
    }

    /// Asks runs to stop whose time is over; tells whether there are more.
    pub(in crate::sqlite) fn stop_late_runs(
        &mut self,
        now: Timestamp,
        limit: usize,
        followed: &mut Followed,
    ) -> Result<bool, StoreError> {
        let late = self.runs.deadlines.iter().take_while(|(at, _)| *at <= now).take(limit.saturating_add(1));
        let late: Vec<(Timestamp, i64)> = late.copied().collect();
        for (deadline, number) in late.iter().take(limit) {
            let created = self.find("SELECT created_at FROM run WHERE number = ?1", [number], |row| row.get(0))?;
            let created = created.ok_or_else(|| damaged(format_args!("no run {number}")))?;
            self.stop_run(*number, RunCancel::InOrder, &took_too_long(timeout(created, *deadline)), followed)?;
        }
        Ok(late.len() > limit)
    }

    /// Decides about jobs.
    pub(super) fn decide(&mut self, decisions: &[Decision]) -> Result<RunProgress, StoreError> {
        let mut followed = Followed::default();
        for Decision { job, run_cancelling, verdict } in decisions {
            let Some(seq) = self.find("SELECT seq FROM job WHERE id = ?1", [job.0.as_bytes()], |row| row.get(0))?
            else {
                continue;
            };
            let Some(place) = self.runs.place(seq).filter(|_| self.runs.asked.contains(&seq)) else { continue };
            if *run_cancelling != self.runs.get(place.number)?.cancelling {
                followed.run.asked.push(*job);
                continue;
            }
            let (state, message) = match verdict {
                GateVerdict::Run => {
                    self.let_go_on(place, &mut followed)?;
                    continue;
                }
                GateVerdict::Skip => (JobState::Skipped, CONDITION_SAID_NO.to_owned()),
                GateVerdict::Fail(message) => (JobState::Failed, message.clone()),
            };
            let turns = self.end_unworked(place, Unworked { state, message: Some(message) }, &mut followed)?;
            self.follow(place.number, turns, &mut followed)?;
            self.release_permits(&mut followed)?;
        }
        followed.into_progress(&self.index)
    }
}
