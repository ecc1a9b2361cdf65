//! What changed in locked runs, as it is written.

use super::artifact::HandingColumns;
use super::code::{before_code, run_state_code};
use super::locked::{Node, Run, Runs};
use super::work::Work;
use crate::postgres::fault::Fault;
use crate::postgres::session::{Step, step};

/// Rows of runs and their graphs to write.
#[derive(Default)]
struct Columns<'a> {
    run: Vec<i64>,
    state: Vec<i16>,
    started_at: Vec<Option<i64>>,
    completed_at: Vec<Option<i64>>,
    message: Vec<Option<&'a str>>,
    last_event: Vec<i64>,
    waiting: Vec<i64>,
    completed: Vec<i64>,
    failed: Vec<i64>,
    cancelled: Vec<i64>,
    skipped: Vec<i64>,
    failures: Vec<i64>,
    event_run: Vec<i64>,
    event_number: Vec<i64>,
    event_at: Vec<i64>,
    event_kind: Vec<&'a str>,
    wait_seq: Vec<i64>,
    wait_needs: Vec<i32>,
    wait_before: Vec<i16>,
    wait_asked: Vec<bool>,
    no_wait: Vec<i64>,
    before_seq: Vec<i64>,
    before: Vec<i16>,
}

impl<'a> Columns<'a> {
    fn run(&mut self, run: &'a Run) {
        if run.changed {
            self.run.push(run.seq);
            self.state.push(run_state_code(run.state));
            self.started_at.push(run.started_at);
            self.completed_at.push(run.completed_at);
            self.message.push(run.message.as_deref());
            self.last_event.push(run.last_event);
            self.waiting.push(run.waiting);
            self.completed.push(run.completed);
            self.failed.push(run.failed);
            self.cancelled.push(run.cancelled);
            self.skipped.push(run.skipped);
            self.failures.push(run.failures);
        }
        for place in &run.touched {
            if let Some(node) = run.nodes.get(place) {
                self.node(node);
            }
        }
    }

    fn node(&mut self, node: &Node) {
        let before = before_code(node.before);
        if let Some(wait) = node.wait {
            self.wait_seq.push(node.seq);
            self.wait_needs.push(wait.needs);
            self.wait_before.push(before);
            self.wait_asked.push(wait.asked);
        } else {
            self.no_wait.push(node.seq);
            if before != 0 {
                self.before_seq.push(node.seq);
                self.before.push(before);
            }
        }
    }

    fn steps(&self) -> Vec<Step<'_>> {
        let mut steps = Vec::new();
        if !self.run.is_empty() {
            steps.push(step!(
                "UPDATE executr.run r SET state = new.state, started_at = new.started_at,
                     completed_at = new.completed_at, message = new.message, last_event = new.last_event,
                     waiting = new.waiting, completed = new.completed, failed = new.failed,
                     cancelled = new.cancelled, skipped = new.skipped, failures = new.failures
                 FROM unnest($1::bigint[], $2::smallint[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[],
                             $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[])
                      AS new (seq, state, started_at, completed_at, message, last_event, waiting, completed, failed,
                              cancelled, skipped, failures)
                 WHERE r.seq = new.seq",
                &self.run,
                &self.state,
                &self.started_at,
                &self.completed_at,
                &self.message,
                &self.last_event,
                &self.waiting,
                &self.completed,
                &self.failed,
                &self.cancelled,
                &self.skipped,
                &self.failures
            ));
        }
        if !self.event_run.is_empty() {
            steps.push(step!(
                "INSERT INTO executr.run_event (run, number, at, kind)
                 SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[])",
                &self.event_run,
                &self.event_number,
                &self.event_at,
                &self.event_kind
            ));
        }
        if !self.wait_seq.is_empty() {
            steps.push(step!(
                "UPDATE executr.waiting w SET needs = new.needs, before = new.before, asked = new.asked
                 FROM unnest($1::bigint[], $2::int[], $3::smallint[], $4::bool[]) AS new (seq, needs, before, asked)
                 WHERE w.seq = new.seq",
                &self.wait_seq,
                &self.wait_needs,
                &self.wait_before,
                &self.wait_asked
            ));
        }
        if !self.no_wait.is_empty() {
            steps.push(step!("DELETE FROM executr.waiting WHERE seq = ANY($1)", &self.no_wait));
        }
        if !self.before_seq.is_empty() {
            steps.push(step!(
                "UPDATE executr.run_job rj SET before = new.before
                 FROM unnest($1::bigint[], $2::smallint[]) AS new (seq, before) WHERE rj.seq = new.seq",
                &self.before_seq,
                &self.before
            ));
        }
        steps
    }
}

impl Runs {
    /// Writes what changed in the runs, and all that the transaction has gathered besides: statements that follow see it.
    pub(in crate::postgres) async fn write(&mut self, work: &mut Work<'_>) -> Result<(), Fault> {
        let mut columns = Columns::default();
        for run in self.runs.values() {
            columns.run(run);
        }
        for told in &self.told {
            columns.event_run.push(told.run);
            columns.event_number.push(told.number);
            columns.event_at.push(told.at);
            columns.event_kind.push(&told.kind);
        }
        let handing = HandingColumns::new(&self.handing)?;
        let mut steps = columns.steps();
        steps.extend(handing.steps(&work.now.0));
        std::mem::take(work.change).write(work.core, work.session, work.now, steps).await?;
        for run in self.runs.values_mut() {
            run.touched.clear();
            run.changed = false;
        }
        self.told.clear();
        self.handing = super::artifact::Handing::default();
        Ok(())
    }
}
