//! Which worker holds the workspaces of runs.

use executr_api::{JobState, WorkspaceId};
use executr_spec::{RequirementClass, WorkerId};

use super::queue::{Followed, Queue};
use super::run::Place;
use crate::lifecycle::graph::pinned_class;
use crate::{RunProgress, WorkspaceRecord};

impl Queue {
    fn pinned(&self, number: u64) -> Option<(Place, &str)> {
        let place = self.jobs.get(&number)?.place?;
        Some((place, self.runs.get(&place.run)?.job(place.index).pinned.as_deref()?))
    }

    /// The places of a run's jobs that use the workspace.
    fn users(&self, run: u64, executor: &str) -> Vec<Place> {
        let uses = |place: &Place| self.runs[&run].job(place.index).pinned.as_deref() == Some(executor);
        self.places(run).filter(uses).collect()
    }

    /// The class in which the job stands in the ready set.
    pub(super) fn class_to_enter(&self, number: u64) -> RequirementClass {
        let job = &self.jobs[&number];
        let Some((place, executor)) = self.pinned(number) else { return job.new.class.clone() };
        let holder = self.runs[&place.run].workspaces.get(executor).and_then(|workspace| workspace.holder.as_ref());
        let has_it = job.lease.and(job.record.worker.as_ref());
        pinned_class(&job.new.class, holder, has_it)
    }

    /// The job, which is about to enter the ready set or stands in it, gets the class it should have there.
    pub(super) fn reclass(&mut self, number: u64) -> bool {
        let class = self.class_to_enter(number);
        let Some(job) = self.jobs.get_mut(&number) else { return false };
        let changed = job.new.class != class;
        job.record.class = class.clone();
        job.new.class = class;
        changed
    }

    /// Moves those in the ready set to where the workspace is now.
    fn reclass_users(&mut self, run: u64, executor: &str, followed: &mut Followed) {
        for place in self.users(run, executor) {
            if self.jobs[&place.number()].is_takeable() && self.reclass(place.number()) {
                followed.readied.add(&self.jobs[&place.number()]);
            }
        }
    }

    /// The worker claimed the job: it holds the workspace from now on.
    pub(super) fn hold_workspace(
        &mut self,
        number: u64,
        worker: &WorkerId,
        followed: &mut Followed,
    ) -> Option<WorkspaceId> {
        let (place, executor) = self.pinned(number).map(|(place, executor)| (place, executor.to_owned()))?;
        let run = self.runs.get_mut(&place.run)?;
        let workspace = run.workspaces.entry(executor.clone()).or_default();
        if workspace.holder.as_ref() != Some(worker) {
            let before = workspace.holder.replace(worker.clone());
            let generation = workspace.generation;
            if let Some(before) = before {
                workspace.generation += 1;
                let id = WorkspaceId { run: run.new.id, executor: executor.clone(), generation };
                run.released.push((id.clone(), before.clone()));
                followed.run.released.push((id, before));
            }
            self.reclass_users(place.run, &executor, followed);
        }
        Some(self.runs[&place.run].workspace_id(&executor))
    }

    /// A job became final: its workspace is released, when it was the last that uses it.
    pub(super) fn release_workspace(&mut self, place: Place, followed: &mut Followed) {
        let Some((_, executor)) = self.pinned(place.number()) else { return };
        let executor = executor.to_owned();
        if self.users(place.run, &executor).iter().any(|place| !self.state_at(*place).is_final()) {
            return;
        }
        let Some(run) = self.runs.get_mut(&place.run) else { return };
        let id = run.workspace_id(&executor);
        if let Some(holder) = run.workspaces.get_mut(&executor).and_then(|workspace| workspace.holder.take()) {
            run.released.push((id.clone(), holder.clone()));
            followed.run.released.push((id, holder));
        }
    }

    pub(super) fn workspaces_of(&self, worker: &WorkerId) -> Vec<WorkspaceRecord> {
        let mut found = Vec::new();
        for run in self.runs.values() {
            let held = run.workspaces.iter().filter(|(_, workspace)| workspace.holder.as_ref() == Some(worker));
            found.extend(held.map(|(executor, _)| (run.workspace_id(executor), false)));
            let released = run.released.iter().filter(|(_, holder)| holder == worker);
            found.extend(released.map(|(id, _)| (id.clone(), true)));
        }
        found.sort_unstable();
        found.into_iter().map(|(id, released)| WorkspaceRecord { id, worker: worker.clone(), released }).collect()
    }

    pub(super) fn cleaned(&mut self, worker: &WorkerId, workspaces: &[WorkspaceId]) {
        for run in self.runs.values_mut() {
            run.released.retain(|(id, holder)| holder != worker || !workspaces.contains(id));
        }
    }

    pub(super) fn lose_workspaces(&mut self, workers: &[WorkerId]) -> RunProgress {
        let mut followed = Followed::default();
        let numbers: Vec<u64> = self.runs.keys().copied().collect();
        for number in numbers {
            let Some(run) = self.runs.get_mut(&number) else { continue };
            run.released.retain(|(_, holder)| !workers.contains(holder));
            let mut lost = Vec::new();
            for (executor, workspace) in &mut run.workspaces {
                if workspace.holder.take_if(|holder| workers.contains(holder)).is_some() {
                    workspace.generation += 1;
                    lost.push(executor.clone());
                }
            }
            for executor in lost {
                self.reclass_users(number, &executor, &mut followed);
            }
        }
        self.followed_alone(followed)
    }

    /// The workspace that a running job uses.
    pub(super) fn workspace_in_use(&self, number: u64) -> Option<WorkspaceId> {
        let (place, executor) = self.pinned(number)?;
        let job = &self.jobs[&number];
        debug_assert!(matches!(job.record.state, JobState::Running | JobState::Cancelling));
        let worker = job.record.worker.as_ref()?;
        let run = &self.runs[&place.run];
        let mut its = self.workspaces_of(worker);
        its.retain(|record| record.id.run == run.new.id && record.id.executor == executor);
        its.pop().map(|record| record.id)
    }
}
