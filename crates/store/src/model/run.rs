//! What the model knows of one run.

use std::collections::BTreeMap;

use executr_api::{JobState, RunEvent, RunEventKind, RunState, WorkspaceId};
use executr_spec::{RunId, Timestamp, WorkerId};

use super::queue::Queue;
use crate::lifecycle::graph::Stop;
use crate::{NewRun, NewRunJob, RunProgress, RunRecord};

/// A run, all of it but its jobs, which are among all jobs.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// What was submitted.
    pub(super) new: NewRun,
    pub(super) state: RunState,
    /// It was asked to stop at once.
    pub(super) at_once: bool,
    pub(super) created_at: Timestamp,
    pub(super) started_at: Option<Timestamp>,
    pub(super) completed_at: Option<Timestamp>,
    pub(super) message: Option<String>,
    pub(super) events: Vec<RunEvent>,
    /// By the executor's name; those that are or were held.
    pub(super) workspaces: BTreeMap<String, Workspace>,
    /// Those to be cleaned up.
    pub(super) released: Vec<(WorkspaceId, WorkerId)>,
}

/// A workspace of a run.
#[derive(Clone, Debug)]
pub(super) struct Workspace {
    pub(super) generation: u32,
    pub(super) holder: Option<WorkerId>,
}

impl Default for Workspace {
    fn default() -> Self {
        Self { generation: 1, holder: None }
    }
}

/// Where a job stands in its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The run's number.
    pub(super) run: u64,
    /// The place in its plan.
    pub(super) index: u32,
}

impl Place {
    /// The job's number: those of a run's jobs follow its own.
    pub(super) fn number(self) -> u64 {
        self.run + 1 + u64::from(self.index)
    }
}

impl Run {
    pub(super) fn new(new: NewRun, now: Timestamp) -> Self {
        Self {
            new,
            state: RunState::Running,
            at_once: false,
            created_at: now,
            started_at: None,
            completed_at: None,
            message: None,
            events: Vec::new(),
            workspaces: BTreeMap::new(),
            released: Vec::new(),
        }
    }

    pub(super) fn job(&self, index: u32) -> &NewRunJob {
        &self.new.jobs[index as usize]
    }

    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.new.timeout.map(|timeout| self.created_at.plus(timeout))
    }

    /// Writes an event.
    pub(super) fn tell(&mut self, kind: RunEventKind, now: Timestamp, progress: &mut RunProgress) {
        let number = self.events.len() as u64 + 1;
        self.events.push(RunEvent { number, at: now, kind });
        progress.changed.push(self.new.id);
        progress.changed.sort_unstable();
        progress.changed.dedup();
    }

    pub(super) fn workspace_id(&self, executor: &str) -> WorkspaceId {
        let generation = self.workspaces.get(executor).map_or(1, |workspace| workspace.generation);
        WorkspaceId { run: self.new.id, executor: executor.to_owned(), generation }
    }
}

impl Queue {
    /// The run and its number.
    pub(super) fn find_run(&self, id: RunId) -> Option<(u64, &Run)> {
        self.runs.iter().find(|(_, run)| run.new.id == id).map(|(number, run)| (*number, run))
    }

    /// The places of a run, in order.
    pub(super) fn places(&self, run: u64) -> impl Iterator<Item = Place> + use<> {
        let jobs = self.runs.get(&run).map_or(0, |run| run.new.jobs.len());
        (0..).take(jobs).map(move |index| Place { run, index })
    }

    pub(super) fn state_at(&self, place: Place) -> JobState {
        self.jobs[&place.number()].record.state
    }

    /// How many jobs of a run count as failures.
    pub(super) fn failures(&self, run: u64) -> u64 {
        let failed = |place: &Place| {
            let taken = self.runs[&run].job(place.index).continue_on_error;
            crate::lifecycle::graph::counts_as_failure(self.state_at(*place), taken)
        };
        self.places(run).filter(failed).count() as u64
    }

    pub(super) fn stop(&self, number: u64) -> Stop {
        let run = &self.runs[&number];
        match run.at_once {
            true => Stop::AtOnce,
            false => Stop::of(run.state == RunState::Cancelling, run.new.fail_fast, self.failures(number)),
        }
    }

    pub(super) fn run_record(&self, number: u64) -> RunRecord {
        let run = &self.runs[&number];
        let mut jobs: BTreeMap<JobState, u64> = BTreeMap::new();
        for place in self.places(number) {
            *jobs.entry(self.state_at(place)).or_default() += 1;
        }
        RunRecord {
            id: run.new.id,
            tenant: run.new.tenant.clone(),
            name: run.new.name.clone(),
            state: run.state,
            created_at: run.created_at,
            started_at: run.started_at,
            completed_at: run.completed_at,
            deadline: run.deadline(),
            fail_fast: run.new.fail_fast,
            source: run.new.source,
            rerun_of: run.new.rerun_of,
            message: run.message.clone(),
            jobs,
            last_event: run.events.len() as u64,
        }
    }
}
