//! Reading live runs from the database, and writing what changed of them.

use std::collections::BTreeMap;

use executr_api::{JobState, RunState};
use executr_spec::{RunId, Timestamp, WorkerId};
use rusqlite::{Connection, params};
use uuid::Uuid;

use super::live::{Edges, Live, Node, Runs, Workspace};
use crate::lifecycle::graph::Before;
use crate::sqlite::error::{damaged, from_sqlite};
use crate::sqlite::index::BucketId;
use crate::sqlite::row::{STATES, get, integer, state, time, unsigned};
use crate::sqlite::writer::Writer;
use crate::{Gate, StoreError};

pub(super) fn gate_code(gate: Gate) -> u8 {
    match gate {
        Gate::Success => 0,
        Gate::Failure => 1,
        Gate::Always => 2,
        Gate::Cancelled => 3,
        Gate::AskAfterSuccess => 4,
        Gate::Ask => 5,
        Gate::AskUnlessCancelled => 6,
    }
}

fn gate(code: u8) -> Result<Gate, StoreError> {
    Ok(match code {
        0 => Gate::Success,
        1 => Gate::Failure,
        2 => Gate::Always,
        3 => Gate::Cancelled,
        4 => Gate::AskAfterSuccess,
        5 => Gate::Ask,
        6 => Gate::AskUnlessCancelled,
        other => return Err(damaged(format_args!("gate {other}"))),
    })
}

pub(super) fn run_state_code(state: RunState) -> u8 {
    match state {
        RunState::Running => 0,
        RunState::Cancelling => 1,
        RunState::Completed => 2,
        RunState::Failed => 3,
        RunState::Cancelled => 4,
    }
}

pub(super) fn run_state(code: u8) -> Result<RunState, StoreError> {
    RunState::ALL.get(usize::from(code)).copied().ok_or_else(|| damaged(format_args!("run state {code}")))
}

pub(super) fn run_id(bytes: [u8; 16]) -> RunId {
    RunId(Uuid::from_bytes(bytes))
}

/// Places as they stand in a column.
pub(super) fn places_to_bytes(places: &[u32]) -> Vec<u8> {
    places.iter().flat_map(|place| place.to_le_bytes()).collect()
}

pub(super) fn places_of_bytes(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks::<4>().0.iter().map(|four| u32::from_le_bytes(*four))
}

impl Runs {
    /// Brings what is in memory to what the database holds. Only what the refused command changed, when that is all that
    /// can differ.
    pub(in crate::sqlite) fn load(&mut self, connection: &Connection) -> Result<(), StoreError> {
        if self.loaded {
            for number in std::mem::take(&mut self.changed) {
                self.forget(number);
                self.load_those(connection, number, number)?;
            }
            return Ok(());
        }
        *self = Self::default();
        self.load_those(connection, i64::MIN, i64::MAX)?;
        self.loaded = true;
        Ok(())
    }

    /// The command is done: final runs are forgotten.
    pub(in crate::sqlite) fn command_is_done(&mut self) {
        for number in std::mem::take(&mut self.changed) {
            if self.live.get(&number).is_some_and(|run| run.ended.is_some()) {
                self.forget(number);
            }
        }
    }

    /// What is in memory may be anything: the next [`load`](Self::load) reads all.
    pub(in crate::sqlite) fn distrust(&mut self) {
        self.loaded = false;
    }

    pub(super) fn forget(&mut self, number: i64) {
        let Some(run) = self.live.remove(&number) else { return };
        let jobs = number..=number + run.nodes.len() as i64;
        self.deadlines.retain(|(_, other)| *other != number);
        self.asked.retain(|seq| !jobs.contains(seq));
        self.keeping.retain(|seq| !jobs.contains(seq));
    }

    fn load_those(&mut self, connection: &Connection, from: i64, to: i64) -> Result<(), StoreError> {
        let mut statement = connection
            .prepare(
                "SELECT number, id, jobs, fail_fast, deadline, state, started_at, message, last_event, created_at
                 FROM run WHERE number BETWEEN ?1 AND ?2 AND completed_at IS NULL",
            )
            .map_err(from_sqlite)?;
        let mut rows = statement.query([from, to]).map_err(from_sqlite)?;
        while let Some(row) = rows.next().map_err(from_sqlite)? {
            let number: i64 = get(row, 0)?;
            let run = Live {
                id: run_id(get(row, 1)?),
                fail_fast: get(row, 3)?,
                stopping: false,
                deadline: time(get(row, 4)?),
                cancelling: run_state(get(row, 5)?)? == RunState::Cancelling,
                at_once: false,
                created_at: Timestamp(get(row, 9)?),
                started_at: time(get(row, 6)?),
                ended: None,
                message: get::<Option<String>>(row, 7)?.map(Into::into),
                last_event: unsigned(get(row, 8)?),
                failed: 0,
                counts: [0; STATES.len()],
                names: Vec::new(),
                nodes: Vec::new(),
                needs: Edges::default(),
                successors: Edges::default(),
                workspaces: Vec::new(),
            };
            self.load_jobs(connection, number, get(row, 2)?, run)?;
        }
        let mut kept = connection
            .prepare("SELECT DISTINCT k.seq FROM lease l JOIN kept_blob k USING (seq) WHERE l.seq BETWEEN ?1 AND ?2")
            .map_err(from_sqlite)?;
        // Those of one run only, when only one is asked for.
        let last = self.live.get(&to).map_or(to, |run| to + run.nodes.len() as i64);
        let kept = kept.query_map([from, last], |row| row.get(0)).map_err(from_sqlite)?;
        for seq in kept {
            self.keeping.insert(seq.map_err(from_sqlite)?);
        }
        Ok(())
    }

    fn load_jobs(&mut self, connection: &Connection, number: i64, jobs: i64, mut run: Live) -> Result<(), StoreError> {
        let mut statement = connection
            .prepare_cached(
                "SELECT r.name, r.gate, r.continue_on_error, r.done, r.pinned, r.needs, r.inputs IS NOT NULL,
                        r.outputs IS NOT NULL, j.state, j.attempt, j.bucket, j.concurrency_key IS NOT NULL, l.cancelling
                 FROM run_job r JOIN job j USING (seq) LEFT JOIN lease l USING (seq)
                 WHERE r.seq BETWEEN ?1 AND ?2 ORDER BY r.seq",
            )
            .map_err(from_sqlite)?;
        let mut rows = statement.query([number + 1, number + jobs]).map_err(from_sqlite)?;
        while let Some(row) = rows.next().map_err(from_sqlite)? {
            let state = match get::<Option<bool>>(row, 12)? {
                Some(true) => JobState::Cancelling,
                Some(false) => JobState::Running,
                None => state(get(row, 8)?)?,
            };
            let leased = matches!(state, JobState::Running | JobState::Cancelling);
            let done: bool = get(row, 3)?;
            let bytes: Vec<u8> = get(row, 5)?;
            let (mut pending, mut before) = (0, Before::default());
            for need in places_of_bytes(&bytes) {
                let need = run.nodes.get(need as usize).ok_or_else(|| damaged(format_args!("need {need}")))?;
                pending += u32::from(!need.state.is_final());
                if !done && need.state.is_final() {
                    before = before.and(need.before.with(need.state, need.continue_on_error));
                }
            }
            run.needs.push(places_of_bytes(&bytes));
            let asked = state == JobState::Waiting && pending == 0;
            if asked {
                self.asked.insert(number + 1 + run.nodes.len() as i64);
            }
            let pinned: Option<String> = get(row, 4)?;
            let node = Node {
                state,
                gate: gate(get(row, 1)?)?,
                continue_on_error: get(row, 2)?,
                done,
                handed_out: leased || get::<u32>(row, 9)? > 0,
                asked,
                keyed: get(row, 11)?,
                has_inputs: get(row, 6)?,
                has_outputs: get(row, 7)?,
                pending,
                before,
                workspace: pinned.map(|executor| run.workspace(&executor)).transpose()?,
                bucket: BucketId(get(row, 10)?),
            };
            run.add(node, get::<String>(row, 0)?.into());
        }
        run.successors = run.needs.reversed();
        let mut workspaces = connection
            .prepare_cached(
                "SELECT executor, generation, worker, released FROM workspace WHERE number = ?1 ORDER BY generation",
            )
            .map_err(from_sqlite)?;
        let mut rows = workspaces.query([number]).map_err(from_sqlite)?;
        let mut newest: BTreeMap<String, (u32, Option<String>)> = BTreeMap::new();
        while let Some(row) = rows.next().map_err(from_sqlite)? {
            let holder = get::<Option<String>>(row, 2)?.filter(|_| !get::<bool>(row, 3).unwrap_or(true));
            newest.insert(get(row, 0)?, (get(row, 1)?, holder));
        }
        for workspace in &mut run.workspaces {
            if let Some((generation, holder)) = newest.remove(&workspace.executor) {
                workspace.generation = generation;
                workspace.holder = holder.map(WorkerId);
            }
        }
        self.insert(number, run);
        Ok(())
    }

    pub(super) fn insert(&mut self, number: i64, run: Live) {
        if let Some(deadline) = run.deadline.filter(|_| !run.cancelling) {
            self.deadlines.insert((deadline, number));
        }
        self.live.insert(number, run);
    }
}

impl Live {
    /// The place of the workspace in the list, made if it is new.
    pub(super) fn workspace(&mut self, executor: &str) -> Result<u16, StoreError> {
        let place = self.workspaces.iter().position(|workspace| workspace.executor == executor);
        let place = place.unwrap_or_else(|| {
            let executor = executor.to_owned();
            self.workspaces.push(Workspace { executor, generation: 1, holder: None, left: 0 });
            self.workspaces.len() - 1
        });
        u16::try_from(place).map_err(|_| StoreError::Database("a run has more than 65536 executors".to_owned()))
    }

    /// Adds the next job; its needs are added apart.
    pub(super) fn add(&mut self, node: Node, name: Box<str>) {
        self.counts[usize::from(crate::sqlite::row::state_code(node.state))] += 1;
        self.failed += u64::from(crate::lifecycle::graph::counts_as_failure(node.state, node.continue_on_error));
        if let Some(workspace) = node.workspace.filter(|_| !node.state.is_final()) {
            self.workspaces[usize::from(workspace)].left += 1;
        }
        self.nodes.push(node);
        self.names.push(name);
    }
}

impl Writer<'_> {
    /// Writes down what the command changed of runs.
    pub(in crate::sqlite) fn flush_runs(&self) -> Result<(), StoreError> {
        for number in &self.runs.changed {
            let Some(run) = self.runs.live.get(number) else { continue };
            let state = run.ended.unwrap_or(if run.cancelling { RunState::Cancelling } else { RunState::Running });
            let completed_at = run.ended.map(|_| self.now().0);
            let counts = run.counts.map(integer);
            self.execute(
                "UPDATE run SET state = ?2, started_at = ?3, completed_at = ?4, message = ?5, last_event = ?6,
                        scheduled = ?7, blocked = ?8, ready = ?9, running = ?10, cancelling = ?11, completed = ?12,
                        failed = ?13, cancelled = ?14, waiting = ?15, skipped = ?16
                 WHERE number = ?1",
                params![
                    number,
                    run_state_code(state),
                    run.started_at.map(|at| at.0),
                    completed_at,
                    run.message.as_deref(),
                    integer(run.last_event),
                    counts[0],
                    counts[1],
                    counts[2],
                    counts[3],
                    counts[4],
                    counts[5],
                    counts[6],
                    counts[7],
                    counts[8],
                    counts[9],
                ],
            )?;
            if completed_at.is_some() {
                self.execute(
                    "INSERT INTO run_final (completed_at, number) VALUES (?1, ?2)",
                    params![completed_at, number],
                )?;
            }
        }
        Ok(())
    }
}

/// The time at which a run's deadline was set off, from its creation.
pub(super) fn timeout(created_at: i64, deadline: Timestamp) -> std::time::Duration {
    std::time::Duration::from_micros(unsigned(deadline.0 - created_at))
}
