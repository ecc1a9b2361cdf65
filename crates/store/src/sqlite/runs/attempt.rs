//! What the end of an attempt means to its job's run.

use executr_api::{AttemptResult, JobState};

use super::events::JobEnd;
use super::follow::Followed;
use super::live::Place;
use crate::StoreError;
use crate::sqlite::error::damaged;
use crate::sqlite::writer::Writer;

/// How a job of a run goes on after an attempt.
#[derive(Clone, Copy, Debug)]
pub(in crate::sqlite) struct AttemptEnd<'a> {
    /// Where the job stands now, which its row and the counts say.
    pub(in crate::sqlite) state: JobState,
    pub(in crate::sqlite) attempt: u32,
    /// What the worker reported, if it did.
    pub(in crate::sqlite) result: Option<&'a AttemptResult>,
    /// The job's message, if that is a new one.
    pub(in crate::sqlite) message: Option<Option<&'a str>>,
}

impl Writer<'_> {
    /// The job is about to fail, and so is its run, whatever either was told of failures.
    pub(in crate::sqlite) fn take_no_failure(&mut self, seq: i64) -> Result<(), StoreError> {
        let Some(place) = self.runs.place(seq) else { return Ok(()) };
        self.runs.node_mut(place)?.continue_on_error = false;
        self.runs.get_mut(place.number)?.fail_fast = true;
        self.execute("UPDATE run_job SET continue_on_error = 0 WHERE seq = ?1", [seq])?;
        self.execute("UPDATE run SET fail_fast = 1 WHERE number = ?1", [place.number]).map(drop)
    }

    /// Tells of the end of an attempt in its run, and does what follows.
    pub(in crate::sqlite) fn attempt_ended(
        &mut self,
        place: Place,
        end: AttemptEnd<'_>,
        followed: &mut Followed,
    ) -> Result<(), StoreError> {
        let AttemptEnd { state, attempt, result, message } = end;
        if !state.is_final() {
            self.let_go_of_blobs(place)?;
            let told = if result.is_some() { message.flatten() } else { None };
            return self.tell_retrying(place, attempt, told, followed);
        }
        if let Some(result) = result {
            self.record_handed(place, &result.outputs, &result.artifacts)?;
        }
        self.let_go_of_blobs(place)?;
        if let (Some(result), Some(message)) = (result, message) {
            let end = JobEnd { state, attempt, exit_code: result.exit_code, message };
            return self.job_ended(place, end, followed);
        }
        // What it says is from before.
        let row = self.find("SELECT exit_code, error_message FROM job WHERE seq = ?1", [place.seq()], |row| {
            Ok((row.get(0)?, row.get::<_, Option<String>>(1)?))
        })?;
        let (exit_code, message) = row.ok_or_else(|| damaged(format_args!("no job {}", place.seq())))?;
        self.job_ended(place, JobEnd { state, attempt, exit_code, message: message.as_deref() }, followed)
    }
}
